"""The docs say what the code does: generated tables, links, commands and files."""

import re
from pathlib import Path

import pytest

from instruction_modelling.command_line import field_docs, make_parser, options_table
from instruction_modelling.options import FinetuneOptions

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "data" / "README.md"]


def test_the_options_page_is_the_one_made_from_the_dataclass() -> None:
    assert (ROOT / "docs" / "options.md").read_text(encoding="utf-8").endswith(options_table(FinetuneOptions))


def test_every_option_has_a_docstring_line() -> None:
    docs = field_docs(FinetuneOptions)
    flags = {action.dest for action in make_parser(FinetuneOptions, "x")._actions} - {"help"}
    assert flags and all(docs.get(flag, "").endswith(".") for flag in flags)


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_links_to_files_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)", page.read_text(encoding="utf-8")):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_scripts_named_in_the_docs_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for name in re.findall(r"\b((?:src|scripts|ds_configs)/[\w/]+\.(?:py|sh|conf))\b", text):
        assert (ROOT / name).exists() or "25b77e" in text, name


def test_flags_in_the_readme_exist() -> None:
    known = {
        flag for script in (ROOT / "src").glob("*.py") for flag in _flags(script.read_text(encoding="utf-8"))
    }
    known |= set(_flags((ROOT / "src/instruction_modelling/options.py").read_text(encoding="utf-8")))
    known |= set(re.findall(r"--([a-z_]+)", (ROOT / "scripts/quickstart.sh").read_text(encoding="utf-8")))
    known |= {"num_processes", "use_deepspeed", "deepspeed_config_file", "mixed_precision", "tasks"}
    used = set(re.findall(r"--([a-z_]+)", (ROOT / "README.md").read_text(encoding="utf-8")))
    assert used <= known, used - known


def _flags(source: str) -> set[str]:
    return set(re.findall(r"^    ([a-z]\w*): ", source, re.MULTILINE))
