"""What is in a training file: its lengths, duplicates, turns and tokens, and where the loss would fall.

    python src/analyze_data.py FILE... [--json OUT.json] [--html OUT.html]
    python src/analyze_data.py FILE... --tokenizer_name T --max_seq_length 2048

Words are counted as the paper's Table 5 counts them: whitespace-separated words of the text in the paper's
format, the role's header included (one word a message); in scripts that write without spaces as docs/data.md
says. Output is the assistant's messages, instruction all others (system and tool messages too); standard
deviations are of the population, and the ratio is that of the means. Every usable row counts, also one with
an empty output. With a tokenizer: tokens by kind, what --max_seq_length cuts, padding and packing, and the
share of the loss by kind under IT (loss on responses) and IM (on instructions too).

The advice compares the file with the data sets of the paper (arXiv 2405.14394) and says what the paper and
later studies found there. Rows that cannot be used are counted and listed; if they are more than
--max_bad_rows, everything is written all the same, and the exit code is 2."""

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from instruction_modelling.called import this_command
from instruction_modelling.command_line import parse_options
from instruction_modelling.errors import run_main
from instruction_modelling.inputs import missing_inputs

if TYPE_CHECKING:
    from instruction_modelling.analysis.near_duplicates import NearDuplicateSettings
    from instruction_modelling.analysis.tokens import TokenSettings


@dataclass
class AnalyzeOptions:
    """Options."""

    files: list[str] = field(metadata={"positional": "FILE", "input": "rows"})
    """Conversations, in any files and shapes that --train_file of src/finetune.py takes."""
    columns: str | None = None
    """What columns of other names are: question=user,answer=assistant, a role or a known column each."""
    json: str | None = None
    """Write every number, unrounded, to this file."""
    html: str | None = None
    """Write a page with figures to this file: one HTML file, for any browser."""
    write_clean: str | None = None
    """Write the rows of all files that can be used to this file, as messages."""
    max_bad_rows: int = 0
    """Unusable rows of a file before the exit code is 2; each is counted and listed with its reason."""
    tokenizer_name: str | None = field(default=None, metadata={"input": "model"})
    """Folder or hub name of a tokenizer: count tokens as well as words."""
    chat_format: str = "auto"
    """auto (the tokenizer's own template if it has one, else tulu), tulu, tokenizer, or a Jinja file."""
    max_seq_length: int = 2048
    """Tokens of a row, BOS counted, beyond which it would be cut."""
    batch_sizes: list[int] = field(default_factory=lambda: [32, 128])
    """Examples a step, for padding and packing."""
    padded_size: int = 8
    """Examples in a padded micro-batch."""
    max_tokens_per_device: int | None = None
    """Most tokens in a packed micro-batch (default: --max_seq_length)."""
    overwrite_cache: bool = False
    """Tokenise again even where the cache holds these rows."""
    no_near_duplicates: bool = False
    """Leave out the search for near-duplicates."""
    near_duplicate_text: Literal["row", "instruction"] = "row"
    """What is compared: whole rows, or their instructions alone."""
    near_duplicate_threshold: float = 0.8
    """Least Jaccard similarity of two rows' sets of word shingles."""
    shingle_words: int = 3
    """Words of a shingle."""
    seed: int = 0
    """Of the order of examples, for packing, and of the hash functions of the search."""

    def check(self) -> list[str]:
        """Return every problem of the options, in words."""
        problems = []
        if not 0 < self.near_duplicate_threshold <= 1:
            problems.append(
                f"--near_duplicate_threshold {self.near_duplicate_threshold}: a similarity above 0, at most 1"
            )
        for name in ("shingle_words", "max_seq_length", "padded_size", "max_tokens_per_device"):
            value = getattr(self, name)
            if value is not None and value < 1:
                problems.append(f"--{name} {value}: must be 1 or more")
        problems += [f"--batch_sizes {size}: must be 1 or more" for size in self.batch_sizes if size < 1]
        most, longest = self.max_tokens_per_device, self.max_seq_length
        if most is not None and most < longest:
            row = f"a row may have --max_seq_length {longest} tokens"
            problems.append(f"--max_tokens_per_device {most}: {row}; give at least that")
        taken = {Path(name).resolve(): "a file that is analysed" for name in self.files}
        for name in ("json", "html", "write_clean"):
            value = getattr(self, name)
            other = f"--{name}" if value is None else taken.setdefault(Path(value).resolve(), f"--{name}")
            if other != f"--{name}":
                problems.append(f"--{name} {value}: is {other} too; choose another name")
        return problems

    def near(self) -> "NearDuplicateSettings | None":
        """Return what near-duplicates are; None where they are not searched for."""
        from instruction_modelling.analysis.near_duplicates import NearDuplicateSettings

        if self.no_near_duplicates:
            return None
        return NearDuplicateSettings(
            self.near_duplicate_text, self.near_duplicate_threshold, self.shingle_words, self.seed
        )

    def tokens(self) -> "TokenSettings | None":
        """Return what tokens are counted for; None where only words are counted."""
        if not self.tokenizer_name:
            return None
        from instruction_modelling.analysis.tokens import UNCUT, TokenSettings
        from instruction_modelling.chat.formats import load_chat_format
        from instruction_modelling.models.loading import load_tokenizer
        from instruction_modelling.tokens.row_encoder import RowEncoder

        tokenizer = load_tokenizer(self.tokenizer_name)
        encoder = RowEncoder(tokenizer, load_chat_format(self.chat_format, tokenizer), UNCUT)
        return TokenSettings(
            encoder,
            self.max_seq_length,
            self.batch_sizes,
            self.max_tokens_per_device or self.max_seq_length,
            self.padded_size,
            self.seed,
            self.overwrite_cache,
        )


def main() -> int:
    """Analyse each file; print, and write what was asked for."""
    options = parse_options(AnalyzeOptions, also_check=missing_inputs)
    from instruction_modelling.analysis.analysis import analyse, bad_row_problems
    from instruction_modelling.analysis.page import analysis_page
    from instruction_modelling.analysis.text import report_lines
    from instruction_modelling.files.whole import write_json, write_text
    from instruction_modelling.progress import print_lines, say_written
    from instruction_modelling.rows.clean import write_clean

    near, tokens, analyses = options.near(), options.tokens(), []
    for name in options.files:
        if len(options.files) > 1 or sys.stderr.isatty():
            print(f"reading {name}", file=sys.stderr, flush=True)
        analyses.append(analyse(name, near, tokens, options.columns))
    files = [analysis.results for analysis in analyses]
    print_lines(report_lines(files))
    if options.json:
        write_json(Path(options.json), {"tokenizer": options.tokenizer_name, "files": files})
    if options.html:
        write_text(Path(options.html), analysis_page(analyses, this_command()))
    if options.write_clean:
        write_clean(Path(options.write_clean), [(each.file, each.refused) for each in analyses])
    say_written(options.json, options.html, options.write_clean)
    problems = bad_row_problems(analyses, options.max_bad_rows)
    for problem in problems:
        print(f"error: {problem}", file=sys.stderr)
    return 2 if problems else 0


if __name__ == "__main__":
    run_main(main)
