"""What a model thought before it answered, taken out of what it wrote."""

import re

_NAMES = "think|thinking|thought|reasoning|seed:think"
_TAG = re.compile(
    rf"(?P<opening><(?:{_NAMES})>|\[THINK\]|◁think▷|<\|channel\|>(?:analysis|commentary)<\|message\|>)"
    rf"|</(?:{_NAMES})>|\[/THINK\]|◁/think▷|<\|channel\|>final<\|message\|>",
    re.IGNORECASE,
)
# gpt-oss's channels, where a decoder left out the control tokens between their names.
_BARE_CHANNELS = re.compile(r"\s*(?:assistant)?analysis.*?assistantfinal", re.DOTALL)


def without_thinking(text: str) -> str:
    """Return what a model answered, without its thoughts.

    A thought stands between `<think>` and `</think>`, or another model family's such tags. Where a chat
    template opened it, the text has its end alone: everything before that is thought. One that never ends
    (the answer was cut at its limit) is thought to the end of the text.
    """
    bare = _BARE_CHANNELS.match(text)
    answered: list[str] = []
    position, within = bare.end() if bare else 0, False
    for tag in _TAG.finditer(text, position):
        if not tag["opening"]:
            # An end that nothing opened: what was kept so far is the thought.
            answered, within, position = answered if within else [], False, tag.end()
        elif not within:
            answered.append(text[position : tag.start()])
            within = True
    return "".join(answered) + ("" if within else text[position:])
