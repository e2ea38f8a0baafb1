"""How many rows and tokens a file will have, before it is tokenised or even there."""

from pathlib import Path
from typing import Any

from instruction_modelling.analysis.literature import paper_tables
from instruction_modelling.rows.files import open_parts
from instruction_modelling.rows.json_lines import BLANK
from instruction_modelling.rows.mixture import is_mixture, read_mixture

# Files of the paper's data, which may not be there yet, by their names in its Table 5.
NAME_IN_TABLE_5 = {
    "lima_data": "LIMA",
    "mmlu-chat_adam_sim_trainp0.05_seed3_p0.05": "Less MMLU Chat",
    "tydiqa_adam_sim_trainp0.05_seed3_p0.05": "Less Tydiqa",
    "bbh-icl_adam_sim_trainp0.05_seed3_p0.05": "Less BBH ICL",
    "alpagasus_3k_dolly": "Alpagasus Dolly 3k",
    "alpagasus_9k_dolly": "Alpagasus Dolly 9k",
    "alpagasus_claude_t45_alpaca": "Alpagasus Alpaca 5k",
    "tulu_v2_data": "Tulu V2",
    "tulu_dataset_01": "Tulu V2 10 %",
    "tulu_dataset_02": "Tulu V2 20 %",
    "tulu_dataset_05": "Tulu V2 50 %",
}
TOKENS_A_WORD = 1.5
"""LIMA and AlpaGasus-Dolly-3k have 1.47 and 1.56 Llama-2 tokens a word."""

CHARACTERS_A_TOKEN = 4.0
"""Of English text, roughly; what is tokenised is counted exactly only by the run itself."""


def tokens_in(path: Path, max_length: int) -> tuple[int, int]:
    """Return the rows of a file of conversations, or of an epoch of a mixture of files, and their tokens,
    each row cut at `max_length`.

    Tokens are estimated by characters, or for a file of the paper's that is not there by its Table 5.

    Raises:
        OSError: the file, or one of the mixture's, is not there, and not the paper's.
        UserError: it cannot be read.
    """
    if is_mixture(path):
        mixed = read_mixture(path)
        counts = [tokens_in(Path(name), max_length) for name in mixed.names]
        rows, shares = sum(count for count, _ in counts), mixed.proportions
        if shares is None:
            return rows, sum(tokens for _, tokens in counts)
        of_row = [tokens / max(count, 1) for count, tokens in counts]
        return rows, round(rows * sum(s * each for s, each in zip(shares, of_row, strict=True)))
    if path.stem in NAME_IN_TABLE_5 and not path.is_file():
        name = NAME_IN_TABLE_5[path.stem]
        count, words, *_ = next(
            data_set["values"] for data_set in paper_tables()["table_5"]["sets"] if data_set["name"] == name
        )
        return count, round(count * min(max_length, words * TOKENS_A_WORD))
    if not path.exists():
        raise FileNotFoundError(path)
    rows = tokens = 0
    for part in open_parts(path):
        for _, value in part.values:
            if value is not BLANK:
                rows += 1
                tokens += min(max_length, int(_characters(value) / CHARACTERS_A_TOKEN) + 1)
    return rows, tokens


def _characters(row: Any) -> int:
    try:
        return sum(len(str(message.get("content") or "")) for message in row["messages"])
    except (KeyError, TypeError, AttributeError):
        # Another shape of row: all of its values, say.
        return sum(len(str(value)) for value in row.values()) if isinstance(row, dict) else 0
