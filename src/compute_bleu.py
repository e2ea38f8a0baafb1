"""BLEU of a model's responses against the references, by sacrebleu.

    python src/compute_bleu.py --responses output/it/eval/train/responses.jsonl

Against the training set's own outputs it tells how closely a model repeats what it was trained on: the
paper's Table 2 averages per-example BLEU. The paper does not say which variant; this is sacrebleu's sentence
BLEU with effective order, so that answers shorter than four words have a score. Corpus BLEU is given as well.
The signatures, which pin the variant, are printed and saved. All values run from 0 to 100.

A reference in Chinese, Japanese or another script without spaces is tokenised by one of its own, which
is said (--bleu_tokenize)."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from instruction_modelling.command_line import parse_options
from instruction_modelling.errors import run_main


@dataclass
class BleuOptions:
    """Options."""

    responses: str
    """The responses.jsonl of src/generate.py, or any JSON Lines with "response" and "reference"."""
    bleu_tokenize: Literal[
        "auto", "13a", "zh", "ja-mecab", "ko-mecab", "flores200", "char", "intl", "none"
    ] = "auto"
    """sacrebleu's tokenizer, for all rows; auto takes 13a, and where a reference is written without spaces
    zh, ja-mecab, flores200 (spBLEU) or char, as docs/evaluation.md says."""
    output_file: str | None = None
    """Where the result goes (default: bleu.json beside the responses)."""


def main() -> None:
    """Read the responses, score them, write and print the result."""
    options = parse_options(BleuOptions)
    from instruction_modelling.files.whole import write_json
    from instruction_modelling.generation.bleu import bleu
    from instruction_modelling.generation.responses import read_responses

    file = read_responses(options.responses)
    result = bleu(file.responses, options.bleu_tokenize)
    path = Path(options.output_file) if options.output_file else file.path.with_name("bleu.json")
    write_json(path, {**asdict(result), "responses": str(file.path), "responses_sha256": file.sha256})
    print(f"sentence BLEU (mean of {result.rows} rows)  {result.sentence_bleu:.2f}   {result.signature}")
    print(f"corpus BLEU                      {result.corpus_bleu:.2f}   {result.corpus_signature}")
    if result.note:
        print(result.note)
    if result.rows_without_reference:
        print(f"{result.rows_without_reference} rows have no reference and were left out")
    print(f"written to {path}")


if __name__ == "__main__":
    run_main(main)
