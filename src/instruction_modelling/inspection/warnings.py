"""What is suspicious about a file's tokens and weights, in words.

Each check returns one line that begins with its name, or None where nothing is suspicious; the line names the
first row that shows the matter.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import takewhile
from typing import TYPE_CHECKING

import numpy as np

from instruction_modelling.chat.formats import ChatFormat
from instruction_modelling.chat.spans import ROLE_KINDS, Rendered, SpanKind
from instruction_modelling.errors import RowRefused
from instruction_modelling.inspection.inspection import Inspection
from instruction_modelling.progress import counted
from instruction_modelling.rows.conversations import BadRow, Conversation, Message
from instruction_modelling.tokens.encoded_rows import EncodedRow, EncodedSequence
from instruction_modelling.tokens.encoder import Tokens
from instruction_modelling.tokens.factors import TrainTurns, pattern_warnings, trained_turns
from instruction_modelling.tokens.idle_weights import idle_weights
from instruction_modelling.tokens.row_encoder import ROWS_AT_ONCE, RowEncoder
from instruction_modelling.tokens.weighted import count_reasons
from instruction_modelling.tokens.weights import WeightPolicy

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

MOST_TRUNCATED = 0.05
# A shorter header ("Q:") would be found in ordinary text.
SHORTEST_HEADER = 3


def find_warnings(
    inspection: Inspection, tokenizer: "PreTrainedTokenizerBase", encoder: RowEncoder
) -> list[str]:
    """Return every warning about the file with this tokenizer, format and loss."""
    warnings = [
        rows_without_response(inspection),
        unsupervised_ends(inspection),
        doubled_bos(inspection, tokenizer),
        missing_pad(tokenizer),
        headers_in_content(inspection, encoder.chat_format, str(tokenizer.bos_token or "")),
        control_text_in_content(inspection, tokenizer),
        truncated_rows(inspection),
        left_out_rows(inspection),
        unread_keys(inspection),
        idle_weights(inspection.file, inspection.arm.policy, inspection.arm.weighs_all()),
        rewritten_history(inspection),
        straddling_tokens(inspection),
        unequal_prompts(inspection, tokenizer, encoder),
        *pattern_warnings(inspection.matches),
    ]
    return [warning for warning in warnings if warning]


def _where(inspection: Inspection, row: EncodedRow) -> str:
    return inspection.file.place(row.conversation)


def _rows(count: int) -> str:
    return counted(count, "row")


# -- rows without a response, end tokens, BOS, padding ------------------------------------------------------


def rows_without_response(inspection: Inspection) -> str | None:
    """Warn of rows in which no response can be trained: arms that train instructions are tuned on them, and
    others are not."""
    rows = [row for row in inspection.encoded if not row.has_response()]
    if not rows:
        return None
    ends = sum(any(weights[1:].any() for weights in row.weights(WeightPolicy())) for row in rows)
    parts = [f"of {ends} trains the tags and the end alone"] * bool(ends)
    parts += [f"leaves {len(rows) - ends} out"] * (ends < len(rows))
    return (
        f"rows without a response: {len(rows)} of {_rows(len(inspection.encoded))} (first: "
        f"{_where(inspection, rows[0])}): IT {' and '.join(parts)}, IM trains on their instructions too, so "
        "the two are tuned on different text; src/compare.py trains every arm on the other rows"
    )


def _trained_responses(row: EncodedRow, turns: TrainTurns) -> list[int]:
    """Return the indices of the assistant messages that are to be trained and were not cut."""
    trained = trained_turns([message.role for message in row.conversation.messages], turns)
    last = int(row.messages.max(initial=-1)) if row.tokens_cut else len(row.conversation.messages)
    return [
        index
        for index, message in enumerate(row.conversation.messages)
        if message.role == "assistant" and message.weight and trained[index] and index < last
    ]


def unsupervised_ends(inspection: Inspection) -> str | None:
    """Warn of responses without an end token of non-zero weight: the model does not learn to stop."""
    responses = absent = unweighted = 0
    first = ""
    for row in inspection.used:
        written: set[int] = set()
        supervised: set[int] = set()
        for sequence, weights in zip(row.sequences, inspection.weights(row), strict=True):
            ends = (sequence.kinds == SpanKind.END) & sequence.owned
            written.update(sequence.messages[ends].tolist())
            supervised.update(sequence.messages[ends & (weights != 0)].tolist())
        for index in _trained_responses(row, inspection.factors.train_turns):
            responses += 1
            absent += index not in written
            unweighted += index in written - supervised
            if index not in supervised:
                first = first or f"{_where(inspection, row)}, message {index}"
    if not first:
        return None
    reasons = [f"the chat format writes no end token after {absent}"] if absent else []
    reasons += [f"the end token of {unweighted} has loss weight 0"] if unweighted else []
    return (
        f"end token not supervised: {absent + unweighted} of {responses} responses ({'; '.join(reasons)}; "
        f"first: {first}): the model does not learn from them where to stop"
    )


def doubled_bos(inspection: Inspection, tokenizer: "PreTrainedTokenizerBase") -> str | None:
    """Warn of rows that begin with two BOS tokens."""
    rows = [
        row
        for row in inspection.encoded
        if len((tokens := row.first.tokens).ids) > 1
        and tokens.is_control[:2].all()
        and tokens.ids[0] == tokens.ids[1] == tokenizer.bos_token_id
    ]
    if not rows:
        return None
    return (
        f"double BOS: {tokenizer.bos_token} stands twice at the start of {_rows(len(rows))} (first: "
        f"{_where(inspection, rows[0])}): the chat template writes it twice; mend the template"
    )


def missing_pad(tokenizer: "PreTrainedTokenizerBase") -> str | None:
    """Warn of a tokenizer without a pad token."""
    if tokenizer.pad_token_id is not None:
        return None
    return (
        "no pad token: the tokenizer names none. Training here needs none (padding is masked by its place), "
        "but other programs that batch prompts ask for one; never let it be the end token where loss is "
        "masked by id"
    )


# -- content that looks like the format's own text ----------------------------------------------------------


def role_headers(chat_format: ChatFormat, bos: str) -> tuple[str, ...]:
    """Return what the format writes right before a content to say whose it is (`<|user|>`, `[/INST]`).

    It is the last line of what the texts before all contents of a role have in common at their end; they are
    read off a probe of two exchanges, and off its generation prompt; BOS and end tokens before it are no part
    of it.
    """
    control_tokens = [token for token in (bos, *chat_format.end_strings) if token]
    headers: dict[str, None] = {}
    for texts in _texts_before_contents(chat_format).values():
        header = _last_line(_common_end(texts)) or _last_line(texts[0])
        while token := next((token for token in control_tokens if header.startswith(token)), None):
            rest = header[len(token) :].lstrip()
            # A BOS that begins every header (SmolLM2's) is part of it: what is left would be a plain word.
            if not rest or rest.isalnum():
                break
            header = rest
        headers[header] = None
    return tuple(header for header in headers if len(header) >= SHORTEST_HEADER and not header.isalnum())


def _texts_before_contents(chat_format: ChatFormat) -> dict[SpanKind, list[str]]:
    """Return, for each role's kind, what the format writes between the content before and the role's own."""
    texts: dict[SpanKind, list[str]] = {}
    exchanges = ("user", "assistant", "user", "assistant")
    for roles in (("system", *exchanges), exchanges):
        probe = Conversation(0, 1, "probe", "probe", tuple(Message(role, role[0].upper()) for role in roles))
        asked = replace(probe, messages=probe.messages[:-1])
        try:
            rendered = chat_format.sequences(probe)[-1]
            without, prompt = chat_format.sequences(asked)[-1].text, chat_format.prompt(asked).text
        except RowRefused:
            continue
        cursor = 0
        for span in rendered.spans:
            if span.kind in ROLE_KINDS.values():
                texts.setdefault(span.kind, []).append(rendered.text[cursor : span.start])
            elif span.kind != SpanKind.END:
                continue
            cursor = span.end
        if prompt.startswith(without) and prompt != without:
            texts.setdefault(SpanKind.ASSISTANT, []).append(prompt[len(without) :])
    return texts


def _common_end(texts: Sequence[str]) -> str:
    ends = zip(*(text[::-1] for text in texts), strict=False)
    common = list(takewhile(lambda characters: len(set(characters)) == 1, ends))
    return texts[0][len(texts[0]) - len(common) :]


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or [""])[-1].strip()


def _content_matches(rows: Sequence[EncodedRow], texts: Sequence[str]) -> Iterator[tuple[EncodedRow, str]]:
    """Yield the rows whose data spells one of the texts, each with the first one found."""
    if not texts:
        return
    pattern = re.compile("|".join(re.escape(text) for text in sorted(texts, key=len, reverse=True)))
    for row in rows:
        matches = (
            pattern.search(sequence.rendered.text, start, end)
            for sequence in row.sequences
            for start, end in sequence.rendered.data_ranges
        )
        if text := next((match[0] for match in matches if match), None):
            yield row, text


def headers_in_content(inspection: Inspection, chat_format: ChatFormat, bos: str) -> str | None:
    """Warn of content that spells a role header of the format."""
    matches = list(
        _content_matches(
            [row for row in inspection.encoded if not row.conversation.plain], role_headers(chat_format, bos)
        )
    )
    if not matches:
        return None
    row, text = matches[0]
    return (
        f"template text in content: the content of {_rows(len(matches))} holds a role header of the chat "
        f"format (first: {_where(inspection, row)}: {text!r}): to the model it looks like a new turn; often "
        "a conversation pasted into one message"
    )


def control_text_in_content(inspection: Inspection, tokenizer: "PreTrainedTokenizerBase") -> str | None:
    """Warn of content that spells a control token."""
    special = [
        token.content for token in tokenizer.added_tokens_decoder.values() if token.special and token.content
    ]
    matches = list(_content_matches(inspection.encoded, special))
    if not matches:
        return None
    row, text = matches[0]
    return (
        f"control text in content: the content of {_rows(len(matches))} holds the text of a control token "
        f"(first: {_where(inspection, row)}: {text!r}); it was tokenised as plain text, and does not act as "
        "a control token"
    )


# -- what is lost -------------------------------------------------------------------------------------------


def truncated_rows(inspection: Inspection) -> str | None:
    """Warn of more than 5 % of the rows cut at the maximum length."""
    rows = [row for row in inspection.used if row.tokens_cut]
    if len(rows) <= MOST_TRUNCATED * len(inspection.used):
        return None
    cut = sum(row.tokens_cut for row in rows)
    whole = cut + sum(row.length for row in inspection.used)
    return (
        f"many rows truncated: {len(rows)} of {len(inspection.used)} rows "
        f"({len(rows) / len(inspection.used):.1%}) are longer than --max_seq_length and lose {cut} tokens, "
        f"{cut / whole:.1%} of all, and with them the end token of each response they cut (first: "
        f"{_where(inspection, rows[0])})"
    )


def left_out_rows(inspection: Inspection) -> str | None:
    """Warn of rows that are not trained on."""
    if not inspection.dropped:
        return None
    reasons = ", ".join(
        f"{count} {reason}" for reason, count in count_reasons(inspection.dropped.values()).items()
    )
    first = min(inspection.dropped)
    items = {
        item.row if isinstance(item, BadRow) else item.conversation.row: item for item in inspection.items
    }
    item = items[first]
    place = inspection.file.place(item if isinstance(item, BadRow) else item.conversation)
    return f"rows dropped: {len(inspection.dropped)} of {inspection.file.rows} ({reasons}; first: {place})"


def unread_keys(inspection: Inspection) -> str | None:
    """Warn of columns and message keys that nothing reads."""
    found = inspection.file.unread_keys()
    if not found:
        return None
    return (
        f"keys that nothing reads: {found}; if one holds what is to be trained on, say so with --columns, or "
        "rename it"
    )


def rewritten_history(inspection: Inspection) -> str | None:
    """Warn of rows that become several sequences, and of what that costs."""
    rows = [row for row in inspection.used if sum(not s.rendered.is_beside for s in row.sequences) > 1]
    if not rows:
        return None
    lengths = inspection.lengths()
    tokens = sum(row.length for row in inspection.used)
    times = tokens / (tokens - lengths["context_tokens"])
    return (
        f"history is rewritten: {_rows(len(inspection.used))} become{'s' * (len(inspection.used) == 1)} "
        f"{lengths['sequences']:,} sequences, {times:.2f} times the tokens: once more messages follow, this "
        "chat template writes an earlier turn "
        "otherwise than the model wrote it, so each such turn is trained in a sequence of its own (first: "
        f"{_where(inspection, rows[0])})"
    )


def straddling_tokens(inspection: Inspection) -> str | None:
    """Warn of tokens with characters of two span kinds."""
    rows = [row for row in inspection.encoded if row.straddling]
    if not rows:
        return None
    return (
        f"tokens straddle spans: {sum(row.straddling for row in rows)} in {_rows(len(rows))} have characters "
        f"of two kinds and count as that of their last one (first: {_where(inspection, rows[0])}): the "
        "format does not separate content from its own text by a token of its own"
    )


# -- generation prompts -------------------------------------------------------------------------------------


def _prompts(
    rows: Sequence[EncodedRow], chat_format: ChatFormat
) -> Iterator[tuple[EncodedRow, EncodedSequence, Rendered]]:
    """Yield each row whose last response has something before it, the sequence that trains that response, and
    its generation prompt."""
    for row in rows:
        messages = row.conversation.messages
        last = max(
            (index for index, message in enumerate(messages) if message.role == "assistant"), default=0
        )
        if not last:
            continue
        history = messages if row.conversation.plain else messages[:last]
        try:
            prompt = chat_format.prompt(replace(row.conversation, messages=history))
        except RowRefused:
            continue
        yield row, [part for part in row.sequences if part.rendered.first_message <= last][-1], prompt


def _first_difference(prompt: Tokens, row: EncodedSequence) -> int | None:
    """Return the index of the first token of the prompt that is not the row's; None where there is none (a
    cut row is compared as far as it goes)."""
    length = min(len(prompt.ids), len(row.tokens.ids))
    different = np.flatnonzero(prompt.ids[:length] != row.tokens.ids[:length])
    if len(different):
        return int(different[0])
    return None if row.tokens_cut or length == len(prompt.ids) else length


def unequal_prompts(
    inspection: Inspection, tokenizer: "PreTrainedTokenizerBase", encoder: RowEncoder
) -> str | None:
    """Warn of generation prompts that are not a token prefix of the training text: the model is asked in
    another way than it was trained."""
    pairs = list(_prompts(inspection.encoded, encoder.chat_format))
    unequal, first = 0, ""
    for start in range(0, len(pairs), ROWS_AT_ONCE):
        part = pairs[start : start + ROWS_AT_ONCE]
        encoded = encoder.text_encoder.encode([rendered for _, _, rendered in part])
        for (row, sequence, rendered), tokens in zip(part, encoded, strict=True):
            index = _first_difference(tokens, sequence)
            if index is None:
                continue
            unequal += 1
            first = first or (
                f"{_where(inspection, row)}, token {index}: {_shown(tokens, rendered, index, tokenizer)} in "
                f"the prompt, {_shown(sequence.tokens, sequence.rendered, index, tokenizer)} in training"
            )
    if not unequal:
        return None
    return (
        f"generation prompt differs: in {_rows(unequal)} of {len(pairs)} the prompt of the last response is "
        f"not a token prefix of the training text (first: {first}): the model is asked in another way than "
        "it was trained"
    )


def _shown(tokens: Tokens, rendered: Rendered, index: int, tokenizer: "PreTrainedTokenizerBase") -> str:
    if index >= len(tokens.ids):
        return "nothing"
    text = rendered.text[tokens.start[index] : tokens.end[index]]
    return repr(text or tokenizer.convert_ids_to_tokens(int(tokens.ids[index])))
