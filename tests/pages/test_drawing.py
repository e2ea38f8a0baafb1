"""Figures for pages: shares as stacked bars, and drawings as SVG inside a page."""

from pathlib import Path

from instruction_modelling.pages.drawing import (
    INK,
    Drawing,
    as_picture,
    drawing_style,
    inline_svg,
    new_figure,
    save_drawing,
)
from instruction_modelling.pages.loss_shares import draw_loss_shares


def test_loss_shares_are_stacked_to_one() -> None:
    drawing = draw_loss_shares(
        "shares", {"IT": {"assistant": 0.9, "end": 0.1}, "IM": {"user": 0.7, "assistant": 0.3}}
    )
    assert drawing is not None
    axes = drawing.figure.axes[0]
    bars = {
        bars.get_label(): [(round(bar.get_x(), 9), round(bar.get_width(), 9)) for bar in bars]
        for bars in axes.containers
    }
    assert bars["user"] == [(0.0, 0.0), (0.0, 0.7)]
    assert bars["assistant"] == [(0.0, 0.9), (0.7, 0.3)]
    assert bars["end"] == [(0.9, 0.1), (1.0, 0.0)]
    assert "template" not in bars and draw_loss_shares("none", {}) is None
    assert [text.get_text() for text in axes.texts] == ["70%", "90%", "30%", "10%"]


def test_svg_takes_the_page_ink_and_keeps_its_names_to_itself(tmp_path: Path) -> None:
    with drawing_style():
        figure, (axes,) = new_figure(2.0)
        axes.plot([0, 1], [0, 1], color="#0072b2")
        axes.set_title("costs $5 and <b>$6")
        picture = save_drawing(Drawing("a-name", "", "", 'says "x" & <y>', figure), tmp_path)
    assert picture.svg.startswith("<svg viewBox=") and picture.svg.endswith("</svg>")
    assert 'aria-label="says &quot;x&quot; &amp; &lt;y&gt;"' in picture.svg
    assert INK not in picture.svg and "currentColor" in picture.svg and "#0072b2" in picture.svg
    assert "http" not in picture.svg and "<style" not in picture.svg
    assert (tmp_path / "a-name.png").stat().st_size > 1000
    svg = (
        '<?xml version="1.0"?>\n<svg width="1pt" viewBox="0 0 1 1"><g id="g"><use xlink:href="#m" '
        'clip-path="url(#p)"/></g></svg>'
    )
    assert inline_svg(svg, "n", "a") == (
        '<svg viewBox="0 0 1 1" role="img" aria-label="a"><g id="n-g"><use href="#n-m" '
        'clip-path="url(#n-p)"/></g></svg>'
    )


def test_writing_that_the_own_font_lacks_is_left_to_the_browsers(tmp_path: Path) -> None:
    def drawn(title: str) -> str:
        with drawing_style():
            figure, (axes,) = new_figure(2.0)
            axes.set_title(title)
            return as_picture(Drawing("n", "", "", "", figure)).svg

    assert "<text" not in drawn("words − αβγ é")
    assert ">中文 हिन्दी</text>" in drawn("中文 हिन्दी")
