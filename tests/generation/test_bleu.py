"""BLEU of responses: sacrebleu's, with the tokenizer that the script of each reference asks for."""

import json
import math
from collections import Counter
from pathlib import Path

import pytest
from raw_samples import write_lines
from script_loader import run_script

from instruction_modelling.errors import UserError
from instruction_modelling.generation.bleu import bleu
from instruction_modelling.generation.responses import Response


def response(row: int, text: str, reference: str | None) -> Response:
    return Response(row, f"r{row}", f"prompt {row}", "", text, reference, None, None)


def test_bleu_by_hand() -> None:
    # "the cat" against "the cat sat": both n-gram precisions are 1, brevity penalty exp(1 - 3 / 2).
    assert bleu([response(0, "the cat", "the cat sat")]).sentence_bleu == pytest.approx(100 * math.exp(-0.5))


def test_bleu_is_sacrebleu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sacrebleu

    pairs = [
        ("The river Seine flows through Paris.", "The Seine flows through Paris."),
        ("Oslo", "Oslo"),
        ("", "42"),
        ("It is 42, I think, or about that.", "The sum is 42."),
    ]
    rows = [{"row": n, "response": a, "reference": b} for n, (a, b) in enumerate(pairs)]
    path = write_lines(tmp_path / "responses.jsonl", [*rows, {"row": 9, "response": "x", "reference": None}])
    assert run_script(monkeypatch, "compute_bleu", "--responses", path) == 0
    result = json.loads((tmp_path / "bleu.json").read_text())
    sentences = [sacrebleu.sentence_bleu(a, [b], use_effective_order=True).score for a, b in pairs]
    assert result["sentence_bleu"] == pytest.approx(sum(sentences) / 4)
    assert result["corpus_bleu"] == pytest.approx(
        sacrebleu.corpus_bleu([a for a, _ in pairs], [[b for _, b in pairs]]).score
    )
    assert (result["rows"], result["rows_without_reference"]) == (4, 1)
    assert "eff:yes" in result["signature"] and f"version:{sacrebleu.__version__}" in result["signature"]
    assert "eff:no" in result["corpus_signature"]


CHINESE = [
    ("今天天气很好，我们一起去公园走走。", "今天天气很好，我们去公园散步。"),
    ("请把门关上，外边太冷了。", "请把门关上，外面很冷。"),
]


def test_a_chinese_reference_is_tokenised_by_character_and_it_is_said() -> None:
    import sacrebleu

    found = bleu([response(n, a, b) for n, (a, b) in enumerate(CHINESE)])
    hypotheses, references = [a for a, _ in CHINESE], [b for _, b in CHINESE]
    expected = sacrebleu.corpus_bleu(hypotheses, [references], tokenize="zh").score
    assert found.corpus_bleu == pytest.approx(expected) and expected > 50
    assert "tok:zh" in found.signature and found.tokenizers == {"zh": 2}
    assert found.note == "tokenised by zh (each Chinese character a word) in 2 rows"
    spaced = bleu([response(n, " ".join(a), " ".join(b)) for n, (a, b) in enumerate(CHINESE)])
    assert (spaced.sentence_bleu, spaced.corpus_bleu) == (found.sentence_bleu, found.corpus_bleu)
    as_before = bleu([response(n, a, b) for n, (a, b) in enumerate(CHINESE)], "13a")
    assert as_before.corpus_bleu == 0
    assert "2 rows have a reference written without spaces, whose words this does not find" in str(
        as_before.note
    )


def test_each_row_of_several_scripts_has_its_own_tokenizer() -> None:
    import sacrebleu

    english = ("The Seine flows through the old town of Paris.", "The Seine flows through Paris.")
    thai = ("ประเทศไทยคืออะไร", "ประเทศไทยคือที่ไหน")
    pairs = [english, *CHINESE, thai]
    found = bleu([response(n, a, b) for n, (a, b) in enumerate(pairs)])
    names = ["13a", "zh", "zh", "char"]
    assert found.tokenizers == {"zh": 2, "13a": 1, "char": 1}
    sentences = [
        sacrebleu.sentence_bleu(a, [b], use_effective_order=True, tokenize=name).score
        for name, (a, b) in zip(names, pairs, strict=True)
    ]
    assert found.sentence_bleu == pytest.approx(sum(sentences) / 4)
    # The corpus: n-grams of all rows counted together, by hand.
    cut = [sacrebleu.BLEU(tokenize=name).tokenizer for name in names]
    hits, totals = [0] * 4, [0] * 4
    lengths = [0, 0]
    for tokenise, (a, b) in zip(cut, pairs, strict=True):
        ours, theirs = tokenise(a).split(), tokenise(b).split()
        lengths[0] += len(ours)
        lengths[1] += len(theirs)
        for n in range(1, 5):
            grams = [Counter(zip(*(words[k:] for k in range(n)), strict=False)) for words in (ours, theirs)]
            hits[n - 1] += (grams[0] & grams[1]).total()
            totals[n - 1] += grams[0].total()
    brevity = min(1.0, math.exp(1 - lengths[1] / lengths[0]))
    geometric = math.exp(sum(math.log(h / t) for h, t in zip(hits, totals, strict=True)) / 4)
    assert found.corpus_bleu == pytest.approx(100 * brevity * geometric)
    assert "tok:13a+char+zh" in found.signature and "tok:13a+char+zh" in found.corpus_signature


def test_japanese_and_thai_take_spbleu_where_its_model_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from instruction_modelling.generation import bleu as module

    assert module.tokenizer_for("首都は東京です。") == "char"
    monkeypatch.setattr(module, "_spbleu_model", lambda: tmp_path)
    assert module.tokenizer_for("首都は東京です。") == module.tokenizer_for("ประเทศไทย") == "flores200"
    assert module.tokenizer_for("भारत की राजधानी") == module.tokenizer_for("한국어") == "13a"
    monkeypatch.setattr(module, "_has_modules", lambda *names: True)
    assert module.tokenizer_for("首都は東京です。") == "ja-mecab"


@pytest.mark.parametrize("name", ["ja-mecab", "flores200"])
def test_a_tokenizer_that_is_not_installed_is_refused(name: str) -> None:
    with pytest.raises(UserError, match=f"--bleu_tokenize {name}"):
        bleu([response(0, "東京", "東京")], name)


def test_a_letter_with_its_accent_apart_is_the_same_letter() -> None:
    assert bleu([response(0, "Vie\u0323\u0302t Nam", "Việt Nam")]).sentence_bleu == pytest.approx(100)


def test_bleu_without_any_reference(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_lines(tmp_path / "responses.jsonl", [{"response": "x"}])
    assert run_script(monkeypatch, "compute_bleu", "--responses", path) == 2
    assert "none of the 1 responses has a reference" in capsys.readouterr().err
