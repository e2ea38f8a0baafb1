"""HTML pages from template files: `page.html` (and `page.css`) beside the module that fills it in, and in
this folder what all pages share: `frame.html`, `macros.html`, `style.css`.

A page is one file: its style is inside, it runs no script and loads nothing."""

from pathlib import Path
from typing import Any

_SHARED = Path(__file__).parent


def render_page(folder: Path, **values: Any) -> str:
    """Return the HTML of `page.html` of a folder, filled in with the values; text in them is escaped.

    Args:
        folder: holds `page.html`; it may extend, import and include the files beside it and those of this
            folder. values: the names that the templates use. An iterator is used up row by row, so that what
            it makes need not be in memory at once.

    Raises:
        jinja2.UndefinedError: the templates use a name that was not given.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader([folder, _SHARED]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html").render(values) + "\n"
