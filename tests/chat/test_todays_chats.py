"""Every turn of today's chats is trained as the model has to write it, by any template."""

from collections import Counter, defaultdict
from copy import deepcopy
from pathlib import Path

import pytest
from chat_samples import conversation
from template_toys import installed_templates, templates_in, toy_tokenizer
from todays_chats import CHATS
from turn_oracle import Oracle, Untold

from instruction_modelling.chat.formats import load_chat_format
from instruction_modelling.chat.spans import RESPONSE_KINDS
from instruction_modelling.rows.conversations import BadRow, Conversation
from instruction_modelling.tokens.encoded_rows import EncodedRow
from instruction_modelling.tokens.row_encoder import RowEncoder
from instruction_modelling.tokens.weights import WeightPolicy

# Refusals that are right: the template leaves out something that the row has.
RIGHT = {
    "reasoning_content not rendered",
    "<think> text not rendered",
    "tool_calls not rendered",
    "arguments not rendered",
    "tools not rendered",
    "content not rendered",
}
# What the oracle, which looks for words, cannot tell; each is a template's own oddity.
ODD = {
    # Writes a content's first space again where another message follows.
    "xinf__qwen2-audio-instruct.jinja",
    # Render nothing without `tools`, which the oracle's search for headers lacks.
    "llamacpp__NousResearch-Hermes-2-Pro-Llama-3-8B-tool_use.jinja",
    "llamacpp__CohereForAI-c4ai-command-r-plus-tool_use.jinja",
}


def row_of(name: str) -> Conversation:
    messages, tools = deepcopy(CHATS[name])
    return conversation(messages, tools=tools or [])


def trained_texts(row: EncodedRow, tokenizer: object) -> dict[int, str]:
    """Return what is trained of each assistant's message under IT, decoded; no message in two sequences."""
    texts: dict[int, str] = {}
    for sequence, weights in zip(row.sequences, row.weights(WeightPolicy()), strict=True):
        ids: dict[int, list[int]] = defaultdict(list)
        for token, message, kind, weight in zip(
            sequence.tokens.ids, sequence.messages, sequence.kinds, weights, strict=True
        ):
            if weight:
                assert kind in RESPONSE_KINDS and weight == 1
                ids[int(message)].append(int(token))
        assert not ids.keys() & texts.keys(), "a turn is trained in two sequences"
        for message, tokens in ids.items():
            texts[message] = tokenizer.decode(tokens, clean_up_tokenization_spaces=False)  # type: ignore[attr-defined]
    return texts


def check_template(name: str, template: str) -> Counter[str]:
    """Hold every chat that a template renders against the oracle; count the turns compared, and refusals."""
    tokenizer = toy_tokenizer(template)
    encoder = RowEncoder(tokenizer, load_chat_format("tokenizer", tokenizer), 40_000)
    counts: Counter[str] = Counter()
    for chat, (messages, tools) in CHATS.items():
        oracle = Oracle(tokenizer, deepcopy(messages), deepcopy(tools))
        if oracle.render(oracle.messages) is None:
            continue
        (encoded,) = encoder.encode([row_of(chat)])
        if isinstance(encoded, BadRow):
            assert encoded.reason in RIGHT, f"{chat}: {encoded.reason}: {encoded.detail}"
            counts[encoded.reason] += 1
            continue
        texts = trained_texts(encoded, tokenizer)
        answers = [index for index, message in enumerate(messages) if message["role"] == "assistant"]
        assert set(texts) <= set(answers)
        for index in answers:
            try:
                expected = oracle.written(index)
            except Untold:
                counts["untold"] += 1
                continue
            assert texts.get(index, "") == expected, f"{chat}, message {index}"
            counts["compared"] += 1
    return counts


TEMPLATES = installed_templates()


@pytest.mark.parametrize("name", sorted(TEMPLATES))
def test_turns_of_installed_templates_are_what_the_model_has_to_write(name: str) -> None:
    assert check_template(name, TEMPLATES[name])["compared"] >= 10


def test_turns_of_many_published_templates_are_what_the_model_has_to_write(shared_data: Path) -> None:
    folder = shared_data / "templates"
    if not folder.is_dir():
        pytest.skip("no folder of published templates beside the public data files")
    failed, counts = [], Counter[str]()
    for name, template in templates_in(folder).items():
        try:
            counts += check_template(name, template)
        except AssertionError as error:
            failed.append(f"{name}: {str(error).splitlines()[0]}")
    unexpected = [line for line in failed if line.partition(":")[0] not in ODD]
    assert not unexpected, "\n".join(unexpected)
    assert counts["compared"] > 4_000
