"""Figures for pages: their common size and style, the colours of span kinds, and SVG in the page's ink.

matplotlib is imported only where something is drawn: `--help` of the scripts need not wait for it.
"""

import io
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Width of a figure in inches.
WIDTH = 5.4
# Text and axes; in the page it becomes currentColor, so that a figure reads on light and dark ground.
INK = "#1b1d21"
KIND_COLOURS = {
    "template": "#8a8f98",
    "system": "#e3b23c",
    "user": "#cc7722",
    "user_end": "#e0a060",
    "assistant": "#2a7f9e",
    "end": "#7cc0d8",
    "reasoning": "#6a9a3b",
    "opening": "#b5c95a",
    "tool_calls": "#8a5fa8",
    "tool": "#b08968",
    "tools": "#b9bec6",
    "text": "#58a0b8",
}
# Kinds whose colour takes white text.
DARK_KINDS = ("assistant", "tool_calls")
_DPI = 160


@dataclass(frozen=True)
class Picture:
    """A figure as the page shows it: `svg` is inline SVG, `guide` says in a line how to read it."""

    name: str
    title: str
    guide: str
    alt: str
    svg: str


@dataclass(frozen=True)
class Drawing:
    """A figure that has been drawn and not yet saved."""

    name: str
    title: str
    guide: str
    alt: str
    figure: "Figure"


@contextmanager
def drawing_style() -> Iterator[None]:
    """Set matplotlib's settings while figures are drawn and saved."""
    import matplotlib

    settings: Any = {
        "font.size": 9,
        "axes.titlesize": 9.5,
        "axes.titlelocation": "left",
        "axes.spines.top": False,
        "axes.spines.right": False,
        "text.color": INK,
        "axes.edgecolor": INK,
        "axes.labelcolor": INK,
        "axes.titlecolor": INK,
        "xtick.color": INK,
        "ytick.color": INK,
        "grid.color": INK,
        "grid.alpha": 0.15,
        "grid.linewidth": 0.6,
        "axes.linewidth": 0.7,
        "legend.frameon": False,
        "legend.fontsize": 8.5,
        "axes.axisbelow": True,
        "svg.fonttype": "path",
        "svg.hashsalt": "report",
        "axes.unicode_minus": True,
        "figure.constrained_layout.use": True,
        "text.parse_math": False,
    }
    with matplotlib.rc_context(settings):
        yield


def draw_legend(figure: "Figure", panels: Sequence["Axes"]) -> None:
    """Draw one legend above a figure's panels, with each label once."""
    handles = {
        text: handle
        for axes in panels
        for handle, text in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    figure.legend(
        handles.values(), handles.keys(), loc="outside upper left", ncols=max(1, min(4, len(handles)))
    )


def new_figure(
    height: float,
    panels: int = 1,
    heights: Sequence[float] | None = None,
    sharex: bool = False,
    sharey: bool = False,
) -> tuple["Figure", list["Axes"]]:
    """Return a figure of the common width and this height (inches), and its panels, one above the other."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, height))
    axes = figure.subplots(
        panels,
        1,
        squeeze=False,
        sharex=sharex,
        sharey=sharey,
        gridspec_kw={"height_ratios": heights or [1] * panels},
    )
    return figure, list(axes[:, 0])


def save_drawing(drawing: Drawing, folder: Path) -> Picture:
    """Save the drawing as a PNG on white in the folder; return it as inline SVG."""
    drawing.figure.savefig(folder / f"{drawing.name}.png", dpi=_DPI, facecolor="white")
    return as_picture(drawing)


def save_files(drawing: Drawing, folder: Path) -> list[Path]:
    """Save the drawing as a PNG on white and as an SVG file in the folder; return both paths."""
    save_drawing(drawing, folder)
    svg = folder / f"{drawing.name}.svg"
    svg.write_text(_svg_text(drawing, transparent=False), encoding="utf-8")
    return [folder / f"{drawing.name}.png", svg]


def as_picture(drawing: Drawing) -> Picture:
    """Return the drawing as inline SVG; its writing as text for the browser's fonts, where it has characters
    that matplotlib's own font lacks (a file's name in Chinese or Hindi would be empty boxes)."""
    return Picture(
        drawing.name,
        drawing.title,
        drawing.guide,
        drawing.alt,
        inline_svg(_svg_text(drawing, transparent=True), drawing.name, drawing.alt),
    )


def _svg_text(drawing: Drawing, transparent: bool) -> str:
    import matplotlib

    text = io.StringIO()
    kind = "path" if _has_all_glyphs(drawing.figure) else "none"
    with matplotlib.rc_context({"svg.fonttype": kind}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        drawing.figure.savefig(text, format="svg", transparent=transparent, metadata={"Date": None})
    return text.getvalue()


def _has_all_glyphs(figure: "Figure") -> bool:
    from matplotlib.font_manager import findfont, get_font
    from matplotlib.text import Text

    texts: list[Text] = figure.findobj(Text)  # type: ignore[assignment]
    written = {ord(character) for text in texts for character in "".join(text.get_text().split())}
    return written <= get_font(findfont("DejaVu Sans")).get_charmap().keys()


def inline_svg(svg: str, name: str, alt: str) -> str:
    """Return an SVG file's text fit to stand in a page: without prologue and style, in the page's ink.

    Its ids get the figure's name in front, else two figures of one page would use each other's parts.
    """
    body = svg[svg.index("<svg") :]
    body = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", body, flags=re.DOTALL)
    head, rest = body.split(">", 1)
    view = re.search(r'viewBox="[^"]*"', head)
    rest = re.sub(r'\bid="', f'id="{escape(name)}-', rest)
    rest = re.sub(r'xlink:href="#', f'href="#{escape(name)}-', rest).replace("url(#", f"url(#{escape(name)}-")
    rest = rest.replace(INK, "currentColor")
    return f'<svg {view.group() if view else ""} role="img" aria-label="{escape(alt)}">{rest.strip()}'
