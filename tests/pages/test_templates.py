"""Pages are made from template files: what is filled in is escaped, and files in other languages stand by
themselves."""

import re
import tomllib
from pathlib import Path

import pytest
from jinja2 import UndefinedError

from instruction_modelling.chat.spans import KIND_NAMES
from instruction_modelling.inspection.text import ANSI
from instruction_modelling.pages.drawing import KIND_COLOURS
from instruction_modelling.pages.templates import render_page

ROOT = Path(__file__).resolve().parents[2]
LIBRARY = ROOT / "src" / "instruction_modelling"
# Signs of a style sheet, a page or a script of our own; markup as test data has none of them.
FOREIGN = re.compile(
    r"""<(?:meta|style|body|head|div|table|section|main|h[1-6])[ >][^"'\n]*(?:["']\s*$|\n)|"""
    r"""^\s*[.#@:\w -]+ \{ ?[a-z-]+: [^}]*; ?\}|addEventListener|document\.""",
    re.MULTILINE,
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder whose page.html shows a text and its rows in the common frame."""
    (tmp_path / "page.html").write_text(
        '{% extends "frame.html" %}{% block contents %}<p>{{ text }}</p>{{ rows | join(",") }}{% endblock %}'
    )
    return tmp_path


def test_what_is_filled_in_is_escaped(folder: Path) -> None:
    page = render_page(folder, title="<i>", text='<script>"&"</script>', rows=[])
    assert page.startswith("<!DOCTYPE html>\n") and page.endswith("</html>\n")
    assert "<title>&lt;i&gt;</title>" in page and "<h1>&lt;i&gt;</h1>" in page
    assert "<p>&lt;script&gt;&#34;&amp;&#34;&lt;/script&gt;</p>" in page


def test_every_page_forbids_scripts_and_loading(folder: Path) -> None:
    page = render_page(folder, title="", text="", rows=[])
    assert "Content-Security-Policy" in page and "default-src 'none'" in page
    assert "prefers-color-scheme: dark" in page and "@import" not in page and "url(" not in page


def test_rows_may_be_made_one_by_one(folder: Path) -> None:
    assert "0,1,2" in render_page(folder, title="", text="", rows=iter(range(3)))


def test_a_name_that_was_not_given_is_an_error(folder: Path) -> None:
    with pytest.raises(UndefinedError, match="'text' is undefined"):
        render_page(folder, title="", rows=[])


def test_style_sheets_can_be_read_by_a_linter() -> None:
    sheets = list(LIBRARY.rglob("*.css"))
    assert len(sheets) == 5
    for sheet in sheets:
        text = sheet.read_text(encoding="utf-8")
        assert not re.search(r"\{[{%#]|[}%#]\}\}", text), f"{sheet}: has marks of a template"
        assert text.count("{") == text.count("}")


def test_no_python_file_holds_a_page_a_style_sheet_or_a_script() -> None:
    for path in [*ROOT.glob("src/**/*.py"), *ROOT.glob("eval/**/*.py"), *ROOT.glob("tests/**/*.py")]:
        if path != Path(__file__):
            found = FOREIGN.search(path.read_text(encoding="utf-8"))
            assert not found, f"{path}: {found.group()}: put it into a .html, .css or .js file"


def test_every_span_kind_has_a_colour_on_pages_in_figures_and_in_text() -> None:
    sheet = (LIBRARY / "inspection" / "page.css").read_text(encoding="utf-8")
    assert [kind for kind in KIND_NAMES if not re.search(rf"\.k-{kind}\b[^{{]*\{{", sheet)] == []
    assert [kind for kind in KIND_NAMES if kind not in KIND_COLOURS or kind not in ANSI] == []


def test_the_package_ships_every_file_that_it_reads() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    patterns = settings["tool"]["setuptools"]["package-data"]["*"]
    read = [path for path in LIBRARY.rglob("*.*") if path.suffix not in (".py", ".pyc")]
    assert len(read) >= 9
    assert [path for path in read if not any(path.match(pattern) for pattern in patterns)] == []
