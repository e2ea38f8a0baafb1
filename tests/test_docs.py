"""The docs say what the code does: generated tables, links, commands and files."""

import importlib
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from notebooks import NOTEBOOKS, sources
from script_loader import load_script

from instruction_modelling.command_line import field_docs, make_parser, options_table
from instruction_modelling.options import FinetuneOptions

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *NOTEBOOKS, ROOT / "data" / "README.md"]


def text_of(page: Path) -> str:
    """Return a page's text, a notebook's without what its cells wrote."""
    return sources(page) if page in NOTEBOOKS else page.read_text(encoding="utf-8")


def test_the_options_page_is_the_one_made_from_the_dataclass() -> None:
    assert (ROOT / "docs" / "options.md").read_text(encoding="utf-8").endswith(options_table(FinetuneOptions))


def test_every_option_has_a_docstring_line() -> None:
    docs = field_docs(FinetuneOptions)
    flags = {action.dest for action in make_parser(FinetuneOptions, "x")._actions} - {"help", "config"}
    assert flags and all(docs.get(flag, "").endswith(".") for flag in flags)


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_links_to_files_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)", text_of(page)):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_scripts_named_in_the_docs_exist(page: Path) -> None:
    text = text_of(page)
    for name in re.findall(r"\b((?:src|scripts|ds_configs)/[\w/]+\.(?:py|sh|conf))\b", text):
        assert (ROOT / name).exists() or "25b77e" in text, name


# -- commands -----------------------------------------------------------------------------------------------

# A command in the docs: what is run, and what follows it up to the end of the line or of the inline code.
COMMAND = re.compile(
    r"(?:\b(?P<script>src/\w+)\.py|-m (?P<module>eval\.[\w.]+)|(?:^|[\s`])(?:bash|sh) (?P<shell>[\w/]+\.sh))"
    r"(?P<rest>[^`|\n]*)"
)


class _Asked(Exception):
    """Carries the options class that a script was about to parse."""


def flags_of_script(main: Any, module: Any, monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Return the flags of a script's real parser: those of the class that its `main` parses."""

    def ask(cls: type, *arguments: object, **named: object) -> None:
        raise _Asked(cls)

    with monkeypatch.context() as patch:
        patch.setattr(module, "parse_options", ask)
        patch.setattr(sys, "argv", ["script"])
        with pytest.raises(_Asked) as asked:
            main()
    parser = make_parser(asked.value.args[0], "x")
    return {flag for action in parser._actions for flag in action.option_strings} | {
        *getattr(module, "SHORT_NAMES", ())
    }


def known_flags(match: "re.Match[str]", monkeypatch: pytest.MonkeyPatch) -> set[str] | None:
    """Return the flags that a documented command takes; None where it is no program of this repository."""
    if match["script"]:
        if not (ROOT / f"{match['script']}.py").exists():
            return None
        module: Any = load_script(match["script"].removeprefix("src/"))
    elif match["module"]:
        module = importlib.import_module(match["module"])
    else:
        script = ROOT / match["shell"]
        text = script.read_text(encoding="utf-8")
        handed_on = {
            flag
            for name in re.findall(r"(?:src/|-m )([\w.]+?)(?:\.py)?(?=[\s\"])", text)
            if name == "sweep" or (ROOT / "src" / f"{name}.py").exists()
            for flag in flags_of_script(load_script(name).main, load_script(name), monkeypatch)
        }
        return {f"--{name}" for name in re.findall(r"--([a-z_0-9]+)", text)} | handed_on
    return flags_of_script(module.main, module, monkeypatch)


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_flags_in_documented_commands_are_those_of_the_real_parsers(
    page: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = text_of(page).replace("\\\n", " ")
    for match in COMMAND.finditer(text):
        # Commands of the authors' repository stand in the docs too, as what ours replace.
        if match["script"] and "open_instruct" in text[max(0, match.start() - 20) : match.start()]:
            continue
        own = match["rest"].split(" -- ")[0]
        used = set(re.findall(r"(?<![\w-])--[a-z][a-z_0-9]*", own))
        if not used:
            continue
        known = known_flags(match, monkeypatch)
        assert known is None or used <= known, (
            f"{page.name}: {match.group(0).strip()}: {sorted(used - known)}"
        )
