"""Whether a turn takes up what the generation prompt has opened.

Some templates ask otherwise than they write: the prompt has an empty thought that no answer in a chat has
(Gemma 4, QwQ, Command-R7B), or opens one that a plain answer closes at once (GLM-4.7, Nemotron 3). Behind
such a prompt the turn is what the model has to write. Where the turn leaves open what the prompt opens
(DeepSeek-R1's `<think>`), or closes what the prompt has closed, it is not."""

import re

# Signs by which templates open and close something, with its name.
_OPENING = r"<([A-Za-z][\w:]*)>|<\|([a-z]\w*)>|<\|START_(\w+)\|>|\[([A-Z]\w*)\]"
_CLOSING = r"</([A-Za-z][\w:]*)>|<([a-z]\w*)\|>|<\|END_(\w+)\|>|\[/([A-Z]\w*)\]"
_SIGN = re.compile(f"(?P<closing>{_CLOSING})|{_OPENING}")
_LAST_OPENING = re.compile(rf"(?:{_OPENING})\s*\Z")


def takes_up(header: str, asked: str, written: str) -> bool:
    """Return whether a turn goes on from its prompt: all that the prompt opens is closed, and nothing twice.

    Args:
        header: what turn and prompt both have since the message before.
        asked: what the prompt has behind it, and `written` what the chat has in its place.
    """
    last = _LAST_OPENING.search(header)
    begun = (last[0] if last else "") + asked
    names = {_name(sign) for sign in _SIGN.finditer(begun)}
    opened: list[str] = []
    # Words of the prompt outside of what it opens and closes are a header, or the beginning of an answer.
    outside, cursor = "", 0
    for text, of_prompt in ((begun, True), (written, False)):
        for sign in _SIGN.finditer(text):
            if _name(sign) not in names:
                continue
            if of_prompt and not opened:
                outside += begun[cursor : sign.start()]
            cursor = sign.end()
            if not sign["closing"]:
                opened.append(_name(sign))
            elif not opened or opened.pop() != _name(sign):
                return False
        if of_prompt:
            outside += begun[cursor:]
    return not opened and not outside.strip()


def _name(sign: re.Match[str]) -> str:
    return next(filter(None, sign.groups()[1:]), "")
