import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from script_loader import load_script, run_script
from tiny import make_tiny_model

from instruction_modelling.chat.formats import load_chat_format
from instruction_modelling.errors import UserError
from instruction_modelling.generation.responder import (
    Decoding,
    KeyedSampler,
    Prompt,
    Responder,
    end_token_ids,
    keep_top_p,
    make_prompts,
    prompts_sha256,
)
from instruction_modelling.generation.responses import Response
from instruction_modelling.models.loading import load_model, load_tokenizer
from instruction_modelling.rows.conversations import Conversation, Message, read_conversations
from instruction_modelling.tokens.encoded import EncodedRow, RowEncoder
from instruction_modelling.tokens.encoder import TextEncoder

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' + '\n' }}{% "
    "endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
ROWS: list[dict[str, Any]] = [
    {
        "id": "a",
        "messages": [
            {"role": "user", "content": "Which river flows through Paris?"},
            {"role": "assistant", "content": "The Seine."},
        ],
    },
    {
        "id": "b",
        "messages": [
            {"role": "system", "content": "Answer in a few words."},
            {"role": "user", "content": "Name the capital of Norway."},
            {"role": "assistant", "content": "Oslo."},
            {"role": "user", "content": "And </s> of Peru?"},
            {"role": "assistant", "content": "Lima."},
        ],
    },
    {"id": "c", "messages": [{"role": "user", "content": "Add 17 and 25."}]},
    {"id": "d", "prompt": "The sum is", "completion": "42."},
    {"id": "e", "instruction": "Explain how a bicycle stays upright, and say why it falls.", "output": ""},
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def eval_file(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return path


def prompts_of(folder: Path, path: Path, **limits: Any) -> tuple[list[Prompt], list[Any]]:
    tokenizer = load_tokenizer(str(folder))
    limits = {"max_seq_length": 2048, "max_new_tokens": 8, "positions": None, **limits}
    return make_prompts(
        read_conversations(path).conversations,
        load_chat_format("auto", tokenizer),
        TextEncoder(tokenizer),
        **limits,
    )


# -- prompts ----------------------------------------------------------------------------------------------


def test_prompts_by_value(folder: Path, eval_file: Path) -> None:
    prompts, refused = prompts_of(folder, eval_file)
    assert refused == []
    assert [(p.row, p.id, p.reference) for p in prompts] == [
        (0, "a", "The Seine."),
        (1, "b", "Lima."),
        (2, "c", None),
        (3, "d", "42."),
        (4, "e", ""),
    ]
    assert prompts[0].text == "<|user|>\nWhich river flows through Paris?\n<|assistant|>\n"
    assert prompts[1].text == (
        "<|system|>\nAnswer in a few words.\n<|user|>\nName the capital of Norway.\n<|assistant|>\n"
        "Oslo.</s>\n<|user|>\nAnd </s> of Peru?\n<|assistant|>\n"
    )
    assert prompts[1].instruction == "And </s> of Peru?"
    assert prompts[2].text == "<|user|>\nAdd 17 and 25.\n<|assistant|>\n"
    assert prompts[3].text == "The sum is"
    assert [p.gap for p in prompts] == [False, False, False, True, False]
    tokenizer = load_tokenizer(str(folder))
    assert all(p.ids[0] == tokenizer.bos_token_id and p.ids.count(0) == 1 for p in prompts)
    # One end token, the earlier answer's; the user's "</s>" is text.
    assert prompts[1].ids.count(tokenizer.eos_token_id) == 1
    assert tokenizer.decode(prompts[1].ids) == "<s>" + prompts[1].text


def test_a_prompt_is_what_training_shows_before_the_response(folder: Path, eval_file: Path) -> None:
    tokenizer = load_tokenizer(str(folder))
    encoder = RowEncoder(tokenizer, load_chat_format("auto", tokenizer), 2048)
    prompts, _ = prompts_of(folder, eval_file)
    for row, prompt in zip(encoder.encode(read_conversations(eval_file).conversations), prompts, strict=True):
        assert isinstance(row, EncodedRow)
        if prompt.reference and not prompt.gap:
            assert row.tokens.ids[: len(prompt.ids)].tolist() == prompt.ids


def test_rows_without_a_prompt_or_too_long_are_refused(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    rows = [{"messages": [{"role": "assistant", "content": "alone"}]}, ROWS[0], ROWS[1]]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    length = len(prompts_of(folder, path)[0][0].ids)
    prompts, refused = prompts_of(folder, path, max_seq_length=length)
    assert [p.row for p in prompts] == [1]
    assert [(bad.row, bad.reason) for bad in refused] == [(0, "no prompt"), (2, "prompt too long")]
    assert f"--max_seq_length is {length}" in refused[1].detail
    assert [p.row for p in prompts_of(folder, path, positions=length + 8)[0]] == [1]
    none, refused = prompts_of(folder, path, positions=length + 7)
    assert none == [] and f"the model's {length + 7} positions" in refused[1].detail


def test_tool_calls_alone_are_no_reference() -> None:
    from instruction_modelling.generation.responder import split_reference

    call = Message("assistant", "", tool_calls=({"name": "f", "arguments": {}},))
    asked = Conversation(0, 1, "x", "d", (Message("user", "q"), call))
    history, reference = split_reference(asked)
    assert [m.role for m in history.messages] == ["user"] and reference is None


def test_end_tokens_are_the_formats_and_the_models(tmp_path: Path) -> None:
    folder = make_tiny_model(tmp_path, CHATML)
    tokenizer = load_tokenizer(str(folder))
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    chat_format = load_chat_format("auto", tokenizer)
    assert end_token_ids(tokenizer, chat_format.end_strings, None) == [1, end]
    assert end_token_ids(tokenizer, chat_format.end_strings, 7) == [1, 7, end]
    assert end_token_ids(tokenizer, chat_format.end_strings, [9, 1]) == [1, 9, end]
    tulu = load_chat_format("tulu", tokenizer)
    assert end_token_ids(tokenizer, tulu.end_strings, None) == [1]


def test_the_prompts_hash_tells_rows_and_tokens_apart() -> None:
    one = Prompt(0, "a", "t", [1, 2], "t", None)
    others = [
        Prompt(1, "a", "t", [1, 2], "t", None),
        Prompt(0, "a", "t", [12], "t", None),
        Prompt(0, "a", "t", [1, 3], "t", None),
    ]
    assert len({prompts_sha256([p]) for p in [one, *others]}) == 4
    assert prompts_sha256([one]) == prompts_sha256([Prompt(0, "b", "u", [1, 2], "v", "w")])


# -- responses --------------------------------------------------------------------------------------------


def greedy_by_hand(model: Any, ids: list[int], ends: Sequence[int], count: int) -> list[int]:
    """One sequence, no cache, no padding: the most likely token, again and again."""
    new: list[int] = []
    with torch.no_grad():
        while len(new) < count and not (new and new[-1] in ends):
            logits = model(input_ids=torch.tensor([ids + new]), use_cache=False).logits[0, -1]
            new.append(int(logits.argmax()))
    return new


def responder(folder: Path, ends: Sequence[int], **decoding: Any) -> Responder:
    model = load_model(str(folder), torch.float32)
    return Responder(model, load_tokenizer(str(folder)), ends, Decoding(**{"max_new_tokens": 24, **decoding}))


def in_row_order(batches: Iterator[list[Response]]) -> list[Response]:
    return sorted((answer for batch in batches for answer in batch), key=lambda answer: answer.row)


def test_greedy_answers_are_the_same_by_hand_one_at_a_time_and_in_batches(
    folder: Path, eval_file: Path
) -> None:
    prompts, _ = prompts_of(folder, eval_file)
    assert len({len(p.ids) for p in prompts}) == len(prompts), (
        "prompts of one length would not test the padding"
    )
    model = load_model(str(folder), torch.float32)
    free = [greedy_by_hand(model, p.ids, [], 24) for p in prompts]
    # A token that comes up inside two answers becomes an end token, so that some answers end and some do not.
    end = next(t for t in free[0][1:-1] if t not in free[0][:1] and any(t not in other for other in free))
    expected = [greedy_by_hand(model, p.ids, [end], 24) for p in prompts]
    tokenizer = load_tokenizer(str(folder))
    for batch_size in (1, 2, 5):
        answers = in_row_order(responder(folder, [end]).answer_all(prompts, batch_size))
        assert [a.row for a in answers] == [0, 1, 2, 3, 4]
        for answer, new, prompt in zip(answers, expected, prompts, strict=True):
            finished = new[-1] == end
            text = str(tokenizer.decode(new[:-1] if finished else new, skip_special_tokens=True))
            assert answer == Response(
                prompt.row,
                prompt.id,
                prompt.text,
                prompt.instruction,
                text.removeprefix(" ") if prompt.gap else text,
                prompt.reference,
                len(new),
                finished,
            )
    assert {new[-1] == end for new in expected} == {True, False}


def test_the_models_own_generation_settings_are_not_used(folder: Path, eval_file: Path) -> None:
    from transformers import GenerationConfig

    prompts, _ = prompts_of(folder, eval_file)
    plain = responder(folder, [1]).answer(prompts[:2])
    model = load_model(str(folder), torch.float32)
    model.generation_config = GenerationConfig(
        repetition_penalty=5.0,
        do_sample=True,
        temperature=3.0,
        max_length=5,
        no_repeat_ngram_size=1,
        eos_token_id=[7],
        suppress_tokens=[3, 4],
    )
    same = Responder(model, load_tokenizer(str(folder)), [1], Decoding(24)).answer(prompts[:2])
    assert [a.response for a in same] == [a.response for a in plain]


def test_a_prompt_completion_answer_loses_the_space_that_joins_it(folder: Path) -> None:
    here = responder(folder, [1])
    word = load_tokenizer(str(folder))(" Paris", add_special_tokens=False).input_ids
    joined = here._response(Prompt(0, "a", "in", [0], "in", None, gap=True), [*word, 1, 1])
    assert (joined.response, joined.tokens, joined.finished) == ("Paris", len(word) + 1, True)
    chat = here._response(Prompt(0, "a", "in", [0], "in", None), word)
    assert (chat.response, chat.tokens, chat.finished) == (" Paris", len(word), False)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        MemoryError(),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"),
    ],
)
def test_out_of_memory_halves_the_batch_and_loses_nothing(
    folder: Path, eval_file: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    prompts, _ = prompts_of(folder, eval_file)
    here = responder(folder, [1], max_new_tokens=4)
    expected = in_row_order(here.answer_all(prompts, 1))
    answer = here.answer
    sizes: list[int] = []
    said: list[str] = []

    def small_memory(batch: Sequence[Prompt]) -> list[Response]:
        sizes.append(len(batch))
        if len(batch) > 2:
            raise error
        return answer(batch)

    monkeypatch.setattr(here, "answer", small_memory)
    assert in_row_order(here.answer_all(prompts, 16, said.append)) == expected
    assert sizes == [5, 2, 2, 1]
    assert len(said) == 1 and "with 5 prompts at once: going on with 2" in said[0]


def test_a_row_that_never_fits_is_named(
    folder: Path, eval_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts, _ = prompts_of(folder, eval_file)
    here = responder(folder, [1])

    def full(batch: Sequence[Prompt]) -> list[Response]:
        raise torch.OutOfMemoryError("out of memory")

    monkeypatch.setattr(here, "answer", full)
    with pytest.raises(UserError, match=rf"row 1 \(a prompt of {len(prompts[1].ids)} tokens\)"):
        list(here.answer_all(prompts, 4))


def test_other_errors_are_not_taken_for_a_lack_of_memory(
    folder: Path, eval_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts, _ = prompts_of(folder, eval_file)
    here = responder(folder, [1])

    def broken(batch: Sequence[Prompt]) -> list[Response]:
        raise RuntimeError("shapes do not match")

    monkeypatch.setattr(here, "answer", broken)
    with pytest.raises(RuntimeError, match="shapes"):
        list(here.answer_all(prompts, 4))


def test_a_tokenizer_that_is_not_the_models(folder: Path) -> None:
    with pytest.raises(UserError, match="row 3 holds token 600 and the model has embeddings of 512"):
        responder(folder, [1]).check_vocabulary([Prompt(3, "a", "t", [0, 600], "t", None)])


# -- drawing ----------------------------------------------------------------------------------------------


def test_top_p_keeps_the_smallest_set_that_reaches_it() -> None:
    scores = torch.tensor([[0.2, 0.5, 0.3], [0.1, 0.1, 0.8]]).log()
    assert torch.isfinite(keep_top_p(scores, 0.6)).tolist() == [[False, True, True], [False, False, True]]
    assert torch.isfinite(keep_top_p(scores, 0.4)).tolist() == [[False, True, False], [False, False, True]]
    assert torch.isfinite(keep_top_p(scores, 1e-9)).sum(dim=-1).tolist() == [1, 1]
    assert keep_top_p(scores, 1.0) is scores


@pytest.mark.parametrize(
    ("temperature", "top_p", "expected"),
    [
        (1.0, 1.0, [0.5, 0.3, 0.2]),
        # p^2, normalised: .25, .09, .04 of .38.
        (0.5, 1.0, [0.25 / 0.38, 0.09 / 0.38, 0.04 / 0.38]),
        (1.0, 0.7, [0.625, 0.375, 0.0]),
    ],
)
def test_tokens_are_drawn_from_the_softmax(temperature: float, top_p: float, expected: list[float]) -> None:
    rows = 4000
    scores = torch.tensor([0.5, 0.3, 0.2]).log().repeat(rows, 1)
    sampler = KeyedSampler(range(rows), Decoding(1, temperature, top_p, seed=3), torch.device("cpu"))
    drawn = sampler(torch.zeros(rows, 1), scores).argmax(dim=-1)
    shares = np.bincount(drawn.numpy(), minlength=3) / rows
    # Four standard errors of a share near one half.
    assert shares == pytest.approx(expected, abs=4 * 0.5 / rows**0.5)
    # The next draw of the same rows is another one.
    assert (sampler(torch.zeros(rows, 1), scores).argmax(dim=-1) != drawn).any()


def test_draws_depend_on_seed_and_row_alone(folder: Path, eval_file: Path) -> None:
    prompts, _ = prompts_of(folder, eval_file)

    def texts(seed: int, batch_size: int, chosen: Sequence[Prompt]) -> dict[int, str]:
        here = responder(folder, [1], temperature=0.8, top_p=0.95, seed=seed, max_new_tokens=10)
        return {a.row: a.response for a in in_row_order(here.answer_all(chosen, batch_size))}

    all_at_once = texts(0, 5, prompts)
    assert texts(0, 1, prompts) == all_at_once
    # A continued run answers some of the rows only.
    assert texts(0, 2, prompts[2:]) == {row: all_at_once[row] for row in (2, 3, 4)}
    assert texts(1, 5, prompts) != all_at_once
    twin = Prompt(99, "twin", prompts[0].text, prompts[0].ids, prompts[0].instruction, None)
    assert texts(0, 2, [prompts[0], twin])[99] != all_at_once[0]


# -- the script -------------------------------------------------------------------------------------------


def arguments(folder: Path, eval_file: Path, out: Path, *more: object) -> list[object]:
    return [
        "--model_name_or_path",
        folder,
        "--eval_file",
        eval_file,
        "--output_dir",
        out,
        "--max_new_tokens",
        6,
        "--dtype",
        "float32",
        *more,
    ]


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n")[:-1]]


def test_the_files_of_a_run(
    folder: Path, eval_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "eval" / "test"
    assert run_script(monkeypatch, "generate", *arguments(folder, eval_file, out, "--batch_size", 2)) == 0
    rows = read(out / "responses.jsonl")
    assert [row["row"] for row in rows] == [0, 1, 2, 3, 4]
    assert list(rows[0]) == [
        "row",
        "id",
        "prompt",
        "instruction",
        "response",
        "reference",
        "tokens",
        "finished",
    ]
    prompts, _ = prompts_of(folder, eval_file)
    expected = in_row_order(responder(folder, [1], max_new_tokens=6).answer_all(prompts, 1))
    assert rows == [vars(answer) for answer in expected]
    made = json.loads((out / "generation.json").read_text())
    assert made["model"] == str(folder) and made["file"] == str(eval_file)
    assert made["sha256"] == read_conversations(eval_file).sha256
    assert (made["max_new_tokens"], made["temperature"], made["top_p"], made["seed"]) == (6, 0.0, 1.0, 0)
    assert (made["dtype"], made["rows"], made["chat_format"], made["end_tokens"]) == (
        "float32",
        5,
        "tulu",
        ["</s>"],
    )
    assert made["complete"] is True and made["seconds"] > 0 and made["left_out"] == {}


def test_a_killed_run_continues_to_the_same_bytes(
    folder: Path, eval_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert run_script(monkeypatch, "generate", *arguments(folder, eval_file, whole, "--batch_size", 1)) == 0
    answer = Responder.answer
    answered: list[int] = []

    def counted(self: Responder, batch: Sequence[Prompt]) -> list[Response]:
        if len(answered) >= 3:
            raise KeyboardInterrupt
        answered.extend(prompt.row for prompt in batch)
        return answer(self, batch)

    monkeypatch.setattr(Responder, "answer", counted)
    assert run_script(monkeypatch, "generate", *arguments(folder, eval_file, cut, "--batch_size", 1)) == 130
    part = cut / "responses.part.jsonl"
    assert [row["row"] for row in read(part)] == answered[:3]
    assert not (cut / "responses.jsonl").exists()
    part.write_bytes(part.read_bytes()[:-15])
    lost = answered[2]
    again: list[int] = []

    def noted(self: Responder, batch: Sequence[Prompt]) -> list[Response]:
        again.extend(prompt.row for prompt in batch)
        return answer(self, batch)

    monkeypatch.setattr(Responder, "answer", noted)
    assert run_script(monkeypatch, "generate", *arguments(folder, eval_file, cut, "--batch_size", 1)) == 0
    assert set(again) == set(range(5)) - set(answered[:2]) and lost in again
    assert (cut / "responses.jsonl").read_bytes() == (whole / "responses.jsonl").read_bytes()
    assert json.loads((cut / "generation.json").read_text())["rows_answered_before"] == 2
    assert not part.exists()


def test_a_finished_run_is_not_computed_again_and_another_is_refused(
    folder: Path,
    eval_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from instruction_modelling.models import loading

    out = tmp_path / "out"
    assert run_script(monkeypatch, "generate", *arguments(folder, eval_file, out)) == 0
    before = (out / "responses.jsonl").read_bytes()

    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("the model was loaded")

    with monkeypatch.context() as patched:
        patched.setattr(loading, "load_model", never)
        assert run_script(patched, "generate", *arguments(folder, eval_file, out, "--batch_size", 3)) == 0
        assert run_script(patched, "generate", *arguments(folder, eval_file, out, "--seed", 4)) == 2
        assert "seed: 0 then, 4 now" in capsys.readouterr().err
        assert run_script(patched, "generate", *arguments(folder, eval_file, out, "--num_rows", 2)) == 2
        assert "num_rows: None then, 2 now" in capsys.readouterr().err
    assert (out / "responses.jsonl").read_bytes() == before
    assert (
        run_script(
            monkeypatch, "generate", *arguments(folder, eval_file, out, "--num_rows", 2, "--overwrite_output")
        )
        == 0
    )
    assert (out / "responses.jsonl").read_bytes() == b"".join(before.splitlines(keepends=True)[:2])


def test_a_model_trained_again_in_the_same_folder_is_another_run(
    eval_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model, out = make_tiny_model(tmp_path / "model"), tmp_path / "out"
    assert run_script(monkeypatch, "generate", *arguments(model, eval_file, out)) == 0
    make_tiny_model(model, seed=1)
    assert run_script(monkeypatch, "generate", *arguments(model, eval_file, out)) == 2
    assert "model_state" in capsys.readouterr().err


def test_rows_that_cannot_be_used_stop_the_run_or_are_counted(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path, out = tmp_path / "rows.jsonl", tmp_path / "out"
    long = {"messages": [{"role": "user", "content": "why " * 300}, {"role": "assistant", "content": "so"}]}
    path.write_text(
        json.dumps(ROWS[0]) + "\n" + json.dumps(long) + "\n{broken\n" + json.dumps(ROWS[2]) + "\n{beyond\n"
    )
    given = arguments(folder, path, out, "--max_seq_length", 200, "--num_rows", 4)
    assert run_script(monkeypatch, "generate", *given) == 2
    said = capsys.readouterr().err
    assert (
        f"{path}:2: prompt too long" in said and f"{path}:3: not JSON" in said and "--max_bad_rows 2" in said
    )
    assert not out.exists()
    assert run_script(monkeypatch, "generate", *given, "--max_bad_rows", 2) == 0
    assert [row["row"] for row in read(out / "responses.jsonl")] == [0, 3]
    made = json.loads((out / "generation.json").read_text())
    assert (made["rows"], made["left_out"]) == (2, {"prompt too long": 1, "not JSON": 1})
    assert [(row["row"], row["line"]) for row in made["rows_left_out"]] == [(1, 2), (2, 3)]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("--temperature", "-1"), "--temperature -1.0"),
        (("--temperature", "nan"), "--temperature nan"),
        (("--top_p", "0"), "--top_p 0.0"),
        (("--top_p", "0.9"), "does nothing at --temperature 0"),
        (("--max_new_tokens", "0"), "--max_new_tokens 0: must be 1 or more"),
        (("--num_rows", "0"), "--num_rows 0"),
        (("--seed", "-1"), "--seed -1"),
    ],
)
def test_options_that_make_no_sense(
    folder: Path,
    eval_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    given: tuple[str, str],
    message: str,
) -> None:
    assert run_script(monkeypatch, "generate", *arguments(folder, eval_file, tmp_path / "out", *given)) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("name", ["none/at/all", "config only"])
def test_a_model_that_is_not_there(
    folder: Path,
    eval_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    name: str,
) -> None:
    model = tmp_path / name
    if name == "config only":
        model.mkdir()
        for file in folder.iterdir():
            if file.suffix != ".safetensors":
                (model / file.name).write_bytes(file.read_bytes())
    assert run_script(monkeypatch, "generate", *arguments(model, eval_file, tmp_path / "out")) == 2
    said = capsys.readouterr().err
    assert "error: " in said and str(model) in said and "Traceback" not in said


def test_help_names_every_option(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from dataclasses import fields

    assert run_script(monkeypatch, "generate", "--help") == 0
    said = capsys.readouterr().out
    assert all(f"--{field.name}" in said for field in fields(load_script("generate").GenerateOptions))
