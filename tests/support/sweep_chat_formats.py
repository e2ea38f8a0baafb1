"""Every chat of `todays_chats` by every template of some folders and installed packages: what is trained as
the model has to write it, what is not, and what is refused, rightly or not. The judge is `turn_oracle`.

bash scripts/sweep_chat_formats.sh --templates FOLDER --packages trl --output_dir chat_formats
"""

import argparse
import importlib.util
import logging
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from chat_sweep import (
    REFUSED_BY_TEMPLATE,
    RIGHT,
    RIGHTLY_REFUSED,
    VERDICTS,
    WRONG,
    WRONGLY_REFUSED,
    Outcome,
    long_row_seconds,
    rows_file,
    sweep_template,
)
from todays_chats import ROWS

from instruction_modelling.files.whole import write_json, write_text
from instruction_modelling.runs.environment import versions

FAMILIES = tuple(dict.fromkeys(row.family for row in ROWS.values()))


def found_templates(folders: Sequence[Path], packages: Sequence[str]) -> dict[str, str]:
    """The templates of folders and of installed packages, by where they are."""
    places = [(folder.name, folder) for folder in folders]
    for package in packages:
        spec = importlib.util.find_spec(package)
        if spec is None or not spec.submodule_search_locations:
            raise SystemExit(f"--packages {package}: not installed")
        places.append((package, Path(next(iter(spec.submodule_search_locations)))))
    found = {}
    for name, folder in places:
        for path in sorted(folder.rglob("*.jinja")):
            text = path.read_text(encoding="utf-8")
            # Packages have other Jinja files too.
            if "messages" in text:
                found[f"{name}/{path.relative_to(folder)}"] = text
    return found


def family_table(outcomes: Sequence[Outcome]) -> list[str]:
    """What became of each family of chats, in Markdown."""
    shown = "right", "rightly refused", "refused by the template", "wrong", "wrongly refused"
    lines = [
        f"| family | chats | {' | '.join(shown)} | turns compared | sequences a row |",
        "|---|" + "---:|" * (len(shown) + 3),
    ]
    for family in (*FAMILIES, "all"):
        of_family = [found for found in outcomes if family in (found.family, "all")]
        verdicts = Counter(found.verdict for found in of_family)
        trained = [found.sequences for found in of_family if found.verdict == RIGHT]
        mean = f"{sum(trained) / len(trained):.2f}" if trained else "–"
        counts = " | ".join(f"{verdicts[verdict]:,}" for verdict in VERDICTS)
        compared = sum(found.compared for found in of_family)
        lines.append(f"| {family} | {len(of_family):,} | {counts} | {compared:,} | {mean} |")
    return lines


def reason_table(outcomes: Sequence[Outcome]) -> list[str]:
    """Why chats are rightly refused, in Markdown."""
    refused = [found for found in outcomes if found.verdict == RIGHTLY_REFUSED]
    lines = ["| why a chat is rightly refused | chats | templates |", "|---|---:|---:|"]
    for reason, count in Counter(found.reason for found in refused).most_common():
        templates = {found.template for found in refused if found.reason == reason}
        lines.append(f"| {reason} | {count:,} | {len(templates):,} |")
    by_template = [found for found in outcomes if found.verdict == REFUSED_BY_TEMPLATE]
    templates = {found.template for found in by_template}
    return [*lines, f"| the template refuses it by itself | {len(by_template):,} | {len(templates):,} |"]


def sequence_table(outcomes: Sequence[Outcome]) -> list[str]:
    """How many sequences the chats are trained as, in Markdown."""
    counts = Counter(found.sequences for found in outcomes if found.verdict == RIGHT)
    lines = ["| sequences a row | chats | templates |", "|---:|---:|---:|"]
    for number, count in sorted(counts.items()):
        templates = {f.template for f in outcomes if f.verdict == RIGHT and f.sequences == number}
        lines.append(f"| {number} | {count:,} | {len(templates):,} |")
    return lines


def _times(made: str, seconds: list[float]) -> str:
    """The median and the slowest of the times of templates that make so many sequences of a row."""
    if not seconds:
        return f"no template makes {made} of it"
    ordered = sorted(seconds)
    slow = sum(taken > 0.5 for taken in ordered)
    return (
        f"{ordered[len(ordered) // 2]:.2f} by the median of {len(ordered)} templates that make {made} of it, "
        f"{ordered[-1]:.2f} by the slowest, more than 0.5 by {slow}"
    )


def main() -> int:
    """0 where nothing is wrong, else 1."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--templates", nargs="*", type=Path, default=[], help="folders of *.jinja files")
    parser.add_argument("--packages", nargs="*", default=["trl"], help="installed packages with templates")
    parser.add_argument("--output_dir", type=Path, default=Path("chat_formats"))
    options = parser.parse_args()
    logging.disable(logging.INFO)
    begin, templates = time.monotonic(), found_templates(options.templates, options.packages)
    outcomes: list[Outcome] = []
    seconds: dict[str, tuple[float, int]] = {}
    with tempfile.TemporaryDirectory() as folder:
        file = rows_file(Path(folder))
    for name, template in templates.items():
        outcomes += sweep_template(name, template, file)
        taken = long_row_seconds(template)
        seconds |= {name: taken} if taken is not None else {}
    faults = [found for found in outcomes if found.verdict in (WRONG, WRONGLY_REFUSED)]
    for found in faults:
        print(f"{found.verdict}: {found.template}, {found.chat}: {found.reason}")
    used = ", ".join(f"{name} {version}" for name, version in versions().items())
    one = [taken for taken, made in seconds.values() if made == 1]
    several = [taken for taken, made in seconds.values() if made > 1]
    text = [
        f"{len(templates):,} templates x {len(ROWS)} chats in {time.monotonic() - begin:,.0f} seconds; "
        f"{sum(found.untold for found in outcomes):,} turns that the judge cannot tell.",
        "A row of 200 messages with calls, in seconds of the processor: "
        f"{_times('one sequence', one)}; {_times('several', several)}.",
        "",
        *family_table(outcomes),
        "",
        *reason_table(outcomes),
        "",
        *sequence_table(outcomes),
        "",
        used,
    ]
    write_text(options.output_dir / "chat_formats.md", "\n".join([*text, ""]))
    values = {"versions": versions(), "seconds": seconds, "outcomes": [asdict(found) for found in outcomes]}
    write_json(options.output_dir / "chat_formats.json", values)
    print("\n".join(text))
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
