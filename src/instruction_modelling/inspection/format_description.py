"""What a chat format does with a chat, found by trying it: where turns end, at which tokens a model stops,
whether earlier turns are rewritten, and what it drops or refuses."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from instruction_modelling.chat.defaults import fixed_date, reads_date, today
from instruction_modelling.chat.formats import ChatFormat, bos_ids
from instruction_modelling.chat.renderer import TemplateRenderer
from instruction_modelling.chat.spans import SpanKind
from instruction_modelling.inspection.format_probes import (
    ANSWER,
    CHATS,
    SECOND_THOUGHT,
    THOUGHT,
    USER,
    FormatProbes,
    Probe,
)
from instruction_modelling.inspection.template_variables import template_variables
from instruction_modelling.models.stop_tokens import stop_ids

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# The turns whose ends are told: the chat that shows each, and its message.
_TURNS = {
    "an answer": ("an answer", 1),
    "an answer with reasoning": ("an answer with reasoning", 1),
    "a call": ("a call", 1),
    "a call before its result": ("a call and its result", 1),
    "an answer after a call": ("a call and its result", 3),
    "two calls at once": ("two calls at once", 1),
}
_ENDING = (SpanKind.END,)
_BEFORE = (SpanKind.OPENING, SpanKind.REASONING)


def describe_format(
    chat_format: ChatFormat,
    tokenizer: "PreTrainedTokenizerBase",
    model_ends: Sequence[int] = (),
    variables: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return what a chat format does, as JSON values; docs/files.md says what each field is.

    Args:
        model_ends: the ids at which the model itself ends a text.
        variables: what --chat_template_kwargs gives the template.
    """
    named = tokenizer.chat_template if isinstance(tokenizer.chat_template, dict) else {}
    own = chat_format.name == "tokenizer"
    for_tools = str(named.get("tool_use") or chat_format.template) if own else chat_format.template
    renderer = TemplateRenderer(tokenizer, chat_format.template)
    tools_renderer = TemplateRenderer(tokenizer, for_tools)
    probes = FormatProbes(chat_format, renderer, tools_renderer)
    answer = probes.found["an answer"]
    templates = [chat_format.template, for_tools]
    date = today()
    return {
        "name": chat_format.name,
        "source": _source(chat_format.name),
        "templates": sorted(named) if own else [],
        "prompt": probes.prompt(),
        "user_end": chat_format.user_end or None,
        "ends": _ends(probes, chat_format),
        "stop_tokens": _stop_tokens(chat_format, renderer, probes, tokenizer, model_ends),
        "ends_that_stop_nothing": _other_ends(chat_format, renderer, probes),
        "openings": {
            name: probe.text_of(index, *_BEFORE).replace(THOUGHT, "…")
            for name, (chat, index) in _TURNS.items()
            if (probe := probes.found[chat]).sequences
        },
        "history": "whole" if chat_format.settings.history == "whole" else _history(probes),
        "sequences": {name: len(probe.sequences) for name, probe in probes.found.items() if probe.sequences},
        "outcomes": {name: _outcome(probe) for name, probe in probes.found.items()},
        "reasons": {name: probe.detail for name, probe in probes.found.items() if probe.reason},
        "arguments": probes.arguments(),
        "reasoning_keys": probes.reasoning_keys(),
        "variables": _variables(probes, templates, tokenizer),
        "given_variables": dict(variables or {}),
        "reads_date": any(reads_date(text) or fixed_date(text, date) is not None for text in templates),
        "bos": _bos(answer, tokenizer),
        "eos": str(tokenizer.eos_token) if tokenizer.eos_token else None,
        "control_tokens": list(answer.sequences[0].control_tokens) if answer.sequences else [],
    }


def _source(name: str) -> str:
    if name == "tulu":
        return "the paper's format (Tülu's)"
    return "the tokenizer's chat template" if name == "tokenizer" else f"the Jinja file {name}"


def _outcome(probe: Probe) -> str:
    """Return what became of a chat: trained, dropped in part, refused by the template, or unclear."""
    if probe.sequences:
        return "trained"
    if "not rendered" in probe.reason or "not in this format" in probe.reason:
        return "dropped"
    return "refused" if probe.reason == "refused by the chat template" else "unclear"


def _ends(probes: FormatProbes, chat_format: ChatFormat) -> dict[str, dict[str, Any]]:
    """Return, for each kind of turn that the format has, its end, and whether that is the next role's token,
    which the template does not write by itself."""
    plain = probes.written([USER.for_template(), ANSWER.for_template()]) or ""
    after = plain[plain.rfind(ANSWER.content) :]
    ends = {}
    for name, (chat, index) in _TURNS.items():
        probe = probes.found[chat]
        if probe.sequences and probe.text_of(index, SpanKind.ASSISTANT, SpanKind.TOOL_CALLS):
            text = probe.end(index)
            alone = name == "an answer" and ANSWER.content in plain and bool(text) and text not in after
            ends[name] = {"text": text, "is_next_role": alone and chat_format.settings.end_of_turn is None}
    return ends


def _lasts(renderer: TemplateRenderer, probes: FormatProbes, chat_format: ChatFormat) -> dict[str, list[str]]:
    """Return the last control token of each end, and the kinds of turn that it ends."""
    lasts: dict[str, list[str]] = {}
    for name, end in _ends(probes, chat_format).items():
        tokens = renderer.tokens_in(end["text"])
        if tokens:
            lasts.setdefault(tokens[-1][2], []).append(name)
    return lasts


def _stop_tokens(
    chat_format: ChatFormat,
    renderer: TemplateRenderer,
    probes: FormatProbes,
    tokenizer: "PreTrainedTokenizerBase",
    model_ends: Sequence[int],
) -> list[dict[str, Any]]:
    """Return the stop tokens that a tuned model is saved with, and why."""
    lasts = _lasts(renderer, probes, chat_format)
    stops = []
    for token in chat_format.end_strings:
        why = f"ends {', '.join(lasts[token])}" if token in lasts else "the tokenizer's EOS"
        number = next(iter(stop_ids(tokenizer, [token], None)), None)
        stops.append({"token": token, "id": number, "why": why})
    taken = {stop["id"] for stop in stops}
    for number in model_ends:
        if number not in taken:
            token = str(tokenizer.convert_ids_to_tokens([number])[0])
            stops.append({"token": token, "id": number, "why": "the model's own"})
    return stops


def _other_ends(
    chat_format: ChatFormat, renderer: TemplateRenderer, probes: FormatProbes
) -> list[dict[str, str]]:
    """Return the tokens that end a turn and yet are no stop tokens of the format."""
    return [
        {"token": token, "why": f"ends {', '.join(names)}, and stands within a turn too"}
        for token, names in _lasts(renderer, probes, chat_format).items()
        if token not in chat_format.end_strings
    ]


def _history(probes: FormatProbes) -> str:
    """Return what becomes of earlier turns: kept, without_reasoning or rewritten."""
    several = probes.found["several turns"]
    if len(several.sequences) > 1:
        return "rewritten"
    reasoned = probes.found["reasoning in several turns"]
    if len(reasoned.sequences) > 1:
        last = reasoned.sequences[-1].text
        return "without_reasoning" if THOUGHT not in last and SECOND_THOUGHT in last else "rewritten"
    of_tools = [probes.found["a turn after a call"], probes.found["reasoning and a call"]]
    return "rewritten" if any(len(probe.sequences) > 1 for probe in of_tools) else "kept"


def _variables(
    probes: FormatProbes, templates: Sequence[str], tokenizer: "PreTrainedTokenizerBase"
) -> list[dict[str, Any]]:
    """Return the variables that the templates read: name, default, and whether true and false differ."""
    found: dict[str, Any] = {}
    for template in dict.fromkeys(templates):
        for name, default in template_variables(template, set(tokenizer.special_tokens_map)).items():
            found[name] = found.get(name, default)
    messages, _ = CHATS["reasoning in several turns"]
    fields = [message.for_template() for message in messages]

    def changes(name: str) -> bool:
        return any(
            probes.written(part, asked=asked, **{name: True})
            != probes.written(part, asked=asked, **{name: False})
            for part, asked in ((fields, False), (fields[:1], True))
        )

    return [
        {"name": name, "default": default, "changes_text": changes(name)} for name, default in found.items()
    ]


def _bos(answer: Probe, tokenizer: "PreTrainedTokenizerBase") -> dict[str, Any]:
    """Return the BOS and who writes it: the template, the tokenizer, or nobody."""
    bos = str(tokenizer.bos_token) if tokenizer.bos_token else None
    first = answer.sequences[0] if answer.sequences else None
    if first and first.needs_bos and bos_ids(tokenizer):
        return {"token": bos, "written_by": "the tokenizer"}
    by_template = bool(bos and first and first.text.startswith(bos))
    return {"token": bos, "written_by": "the template" if by_template else "nobody"}
