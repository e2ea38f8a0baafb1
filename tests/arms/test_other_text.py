"""Another text in place of the instruction: responses weigh, token by token, as in reweighted IT, the text
beside weighs what the instruction does under IM, and an update's loss is that of plain transformers."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from row_files import write
from step_samples import PER_EXAMPLE, random_model, relative, run_step, wrap
from tiny import make_tiny_tokenizer
from transformers import LlamaConfig

from instruction_modelling.arms.rows import instruction_of, unrelated_text, write_arm_rows
from instruction_modelling.arms.rules import ArmRules
from instruction_modelling.chat.spans import SpanKind
from instruction_modelling.errors import UserError
from instruction_modelling.rows.conversations import Conversation, read_conversations
from instruction_modelling.tokens.collector import collect
from instruction_modelling.tokens.encoded import EncodedData
from instruction_modelling.tokens.row_encoder import row_encoder
from instruction_modelling.tokens.weighted import WeightedData, weigh_rows
from instruction_modelling.tokens.weights import WeightPolicy
from instruction_modelling.training.batches import step_micro_batches
from instruction_modelling.training.plan import GlobalBatch, Layout

# Writes tools' outputs, and an assistant's reasoning at the end of the chat alone: rows of several answers
# with it are several sequences.
TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}<{{ m.role }}>\n"
    "{% if m.reasoning_content and loop.last %}[{{ m.reasoning_content }}]{% endif %}"
    "{{ m.content }}{% if m.role == 'assistant' %}{{ eos_token }}{% endif %}\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant>\n{% endif %}"
)


def says(role: str, content: str, **more: Any) -> dict[str, Any]:
    return {"role": role, "content": content, **more}


ROWS: list[dict[str, Any]] = [
    {
        "messages": [
            says("user", "Which river flows through Paris, and where does it end?"),
            says("assistant", "Seine"),
        ]
    },
    # Several turns, of which one weighs nothing and one half; a stretch of a question weighs twice.
    {
        "messages": [
            says("system", "Answer in a few words.", weight=0.5),
            says("user", "Name the capital of Norway.", loss_spans=[[5, 16, 2.0]]),
            says("assistant", "Oslo", weight=0.25),
            says("user", "And of Sweden?", weight=0),
            says("assistant", "Stockholm"),
        ]
    },
    # A tool's output is no instruction.
    {
        "messages": [
            says("user", "Add 17 and 25."),
            says("assistant", "Let me see."),
            says("tool", "forty-two, says the machine"),
            says("assistant", "42"),
        ]
    },
    # Two sequences: the first answer's reasoning is not written once more follows.
    {
        "messages": [
            says("user", "Three fruits, please"),
            says("assistant", "apples, pears, plums", reasoning_content="short"),
            says("user", "One more"),
            says("assistant", "figs", reasoning_content="fig"),
        ]
    },
    {"messages": [says("user", "パリの川は何?"), says("assistant", "セーヌ")]},
    # One word, and a text that spells a control token.
    {"messages": [says("user", "</s>"), says("assistant", "What is that?")]},
]
TRANSFORMS = ("permuted-instruction-beside", "other-instructions-beside", "unrelated-text-beside")
LENGTH = 50


def encoded(path: Path) -> EncodedData:
    encoder = row_encoder(make_tiny_tokenizer(TEMPLATE), "tokenizer", LENGTH)
    data = collect(encoder.encode(read_conversations(path).conversations))
    assert not data.refused and len(data) == len(ROWS)
    return data


def weighed(data: EncodedData, instruction: float, denominator: str) -> WeightedData:
    weighted, dropped = weigh_rows(data, WeightPolicy(instruction=instruction), "example", denominator)
    assert not dropped
    return weighted


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("other_text")
    write(folder, *ROWS)
    kept_out = write(folder, *ROWS[1:3], name="kept_out.jsonl")
    for transform in TRANSFORMS:
        write_arm_rows(
            ArmRules(data_transform=transform),  # type: ignore[arg-type]
            folder / "data.jsonl",
            folder / f"{transform}.jsonl",
            3,
            list(read_conversations(kept_out).conversations),
        )
    return folder


def by_loops(data: EncodedData, row: int, examples: int) -> tuple[list[float], list[float]]:
    """c_t under IM of a row's response tokens and of its instruction's, in order, from the definition."""
    kinds: list[tuple[int, float]] = []
    for sequence in data.sequences_of(row):
        at = data.sequence_span(sequence)
        for token in range(at.start + 1, at.stop):
            message = int(data.messages[token])
            weight = 1.0 if message < 0 else data.message_weights[row][message]
            weight *= 1.0 if data.factors is None else float(data.factors[token])
            if data.owned[token]:
                kinds.append((int(data.kinds[token]), weight))
    instruction = [weight for kind, weight in kinds if kind in (SpanKind.SYSTEM, SpanKind.USER)]
    of_response = (SpanKind.ASSISTANT, SpanKind.END, SpanKind.REASONING, SpanKind.OPENING)
    response = [weight for kind, weight in kinds if kind in of_response]
    n = sum(weight != 0 for weight in [*instruction, *response])
    return [w / n / examples for w in response], [w / n / examples for w in instruction]


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_coefficients_are_those_of_reweighted_it_and_of_the_instruction_under_im(
    place: Path, transform: str
) -> None:
    plain, beside = encoded(place / "data.jsonl"), encoded(place / f"{transform}.jsonl")
    examples = list(range(len(ROWS)))
    control = weighed(beside, 0.0, "nonzero").coefficients(examples)[0]
    reweighted = weighed(plain, 0.0, "messages").coefficients(examples)[0]
    im = weighed(plain, 1.0, "nonzero").coefficients(examples)[0]
    for row in examples:
        own = len(reweighted[row])
        kinds = plain.kinds[plain.span(row)]
        response, instruction = by_loops(plain, row, len(examples))
        # The conversation's tokens are untouched, and weigh to the bit what they do in reweighted IT.
        assert np.array_equal(beside.ids[beside.span(row)][:own], plain.ids[plain.span(row)])
        assert np.array_equal(control[row][:own], reweighted[row])
        assert np.allclose(reweighted[row][reweighted[row] != 0], [c for c in response if c], rtol=1e-6)
        # The text beside has the instruction's coefficients, each of them, in order.
        documents = control[row][own:]
        of_im = im[row][np.isin(kinds, (SpanKind.SYSTEM, SpanKind.USER)) & (im[row] != 0)]
        assert np.array_equal(documents[documents != 0], of_im)
        assert documents.sum() == pytest.approx(sum(instruction), rel=1e-6)
        assert control[row].sum() == pytest.approx(im[row].sum(), rel=1e-6)
    # The row of two sequences has a document for each, none longer than its sequence.
    assert len(plain.sequences_of(3)) == 2 and len(beside.sequences_of(3)) == 4
    assert max(beside.sequence_lengths) == max(plain.sequence_lengths) == LENGTH


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_an_updates_loss_and_gradient_are_those_of_plain_transformers(place: Path, transform: str) -> None:
    plain, beside = encoded(place / "data.jsonl"), encoded(place / f"{transform}.jsonl")
    config = LlamaConfig(
        vocab_size=512,
        hidden_size=24,
        intermediate_size=40,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        initializer_range=0.15,
    )
    examples = [4, 0, 3, 1, 5, 2]
    layout = Layout(True, 2, 128)
    batches = step_micro_batches(weighed(beside, 0.0, "nonzero"), GlobalBatch(0, np.array(examples)), layout)
    loss, gradient = run_step(wrap(random_model(config, PER_EXAMPLE)), batches)
    # The same by transformers alone: every sequence by itself, IM's coefficients by the definition.
    model = random_model(config)
    total = torch.zeros(())
    for row in examples:
        response, instruction = by_loops(plain, row, len(examples))
        count = len(plain.sequences_of(row))
        sequences = list(beside.sequences_of(row))
        total = total + summed(model, beside, sequences[:count], response, response_only=True)
        total = total + summed(model, beside, sequences[count:], instruction, response_only=False)
    total.backward()
    theirs = torch.cat([w.grad.double().flatten() for w in model.parameters()])
    assert loss == pytest.approx(float(total.detach()), rel=1e-5) and relative(gradient, theirs) < 1e-4


def summed(
    model: Any,
    data: EncodedData,
    sequences: Sequence[int],
    coefficients: Sequence[float],
    response_only: bool,
) -> torch.Tensor:
    """The sum of c x nll over sequences, each in a forward pass of its own."""
    parts, left = [], list(coefficients)
    for sequence in sequences:
        at = data.sequence_span(sequence)
        ids = torch.from_numpy(data.ids[at].astype(np.int64))
        logs = torch.log_softmax(model(input_ids=ids[None], use_cache=False).logits[0].float(), dim=-1)
        for place in range(1, len(ids)):
            kind, owned = int(data.kinds[at.start + place]), bool(data.owned[at.start + place])
            wanted = (SpanKind.ASSISTANT, SpanKind.END, SpanKind.REASONING, SpanKind.OPENING)
            if owned and (kind in wanted if response_only else kind == SpanKind.TEXT):
                parts.append(-left.pop(0) * logs[place - 1, ids[place]])
    assert not left
    return torch.stack(parts).sum() if parts else torch.zeros(())


def test_the_texts_beside_are_what_they_are_called(place: Path) -> None:
    rows = {name: list(read_conversations(place / f"{name}.jsonl").conversations) for name in TRANSFORMS}
    asked = [instruction_of(row) for row in read_conversations(place / "data.jsonl").conversations]
    first = rows["permuted-instruction-beside"][0].text_beside.split()
    assert sorted(first) == sorted(asked[0].split() * 2) and first != asked[0].split() * 2
    # Where no spaces part words, signs are moved.
    assert sorted(rows["permuted-instruction-beside"][4].text_beside)[-5:] == sorted(asked[4] * 2)[-5:]
    others = {asked[1], asked[2]}
    for row, own in zip(rows["other-instructions-beside"], asked, strict=True):
        assert len(row.text_beside) >= 2 * len(own)
        assert row.text_beside.replace(asked[1], "").replace(asked[2], "").strip() == "" and others
    for row, own in zip(rows["unrelated-text-beside"], asked, strict=True):
        assert row.text_beside in unrelated_text() * 2 and len(row.text_beside) <= 2 * len(own)


def test_the_healed_models_rows_are_as_many_and_hold_nothing_of_ours(place: Path) -> None:
    made = place / "alone.jsonl"
    write_arm_rows(ArmRules(data_transform="unrelated-text-alone"), place / "data.jsonl", made, 0)
    rows = list(read_conversations(made).conversations)
    before: list[Conversation] = list(read_conversations(place / "data.jsonl").conversations)
    assert [row.id for row in rows] == [row.id for row in before] and all(row.plain for row in rows)
    for row, old in zip(rows, before, strict=True):
        question, text = (message.content for message in row.messages)
        assert question == "" and text in unrelated_text() * 2
        assert 0 < len(text) <= sum(len(message.text) for message in old.messages)
    weighted = weighed(encoded(made), 0.0, "nonzero")
    assert (weighted.all_counts() > 0).all()


def test_the_same_seed_draws_the_same_and_another_another(place: Path) -> None:
    def drawn(seed: int) -> bytes:
        write_arm_rows(
            ArmRules(data_transform="unrelated-text-beside"),
            place / "data.jsonl",
            place / "drawn.jsonl",
            seed,
        )
        return (place / "drawn.jsonl").read_bytes()

    assert drawn(1) == drawn(1) != drawn(2)


def test_instructions_of_rows_kept_out_need_such_rows(place: Path) -> None:
    with pytest.raises(UserError, match="no rows are kept out of training; give fewer --train_rows"):
        write_arm_rows(
            ArmRules(data_transform="other-instructions-beside"),
            place / "data.jsonl",
            place / "none.jsonl",
            0,
        )
