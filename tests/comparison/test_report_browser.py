"""The report in a browser: it fits a desktop and a phone, in light and in dark."""

from pathlib import Path

import pytest
from browser import drawn, framed_address, measured_widths, needs_browser, put_in_frame
from report_fixtures import write_losses, write_responses, write_run
from script_loader import run_script

pytestmark = needs_browser


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with report.html: a report with long words, long names and seven arms."""
    root = tmp_path_factory.mktemp("browser")
    references = ["red"] * 4
    runs = []
    for arm in ("IT", "IM", "IM w=0.1", "IM w=0.5", "IM+NEFTune", "prompt only"):
        runs.append(
            write_run(root / ("a_long_folder_name_" * 3 + arm), arm, data={"path": "x" * 80 + ".jsonl"})
        )
        write_losses(runs[-1], "test", [1.0, 2.0, 3.0, 4.5], user=2.0)
        write_losses(runs[-1], "train", [1.0, 2.0])
        write_responses(
            runs[-1],
            ["red", "W" * 400, "<table><tr><td>" * 9, "line\n" * 9],
            references,
            instruction="Q" * 300,
        )
    write_losses(root / "base", "test", [2.0, 2.0, 3.0, 5.0], user=2.0)
    with pytest.MonkeyPatch.context() as patch:
        assert (
            run_script(patch, "report", "--runs", *runs, "--base", root / "base", "--output_dir", root) == 0
        )
    return root


@pytest.mark.parametrize("width", [320, 390, 768, 1200])
def test_nothing_is_wider_than_the_page(folder: Path, width: int) -> None:
    frame = put_in_frame(folder / "report.html")
    assert measured_widths(frame, width) == (width, width, 0)


@pytest.mark.parametrize(("scheme", "ground"), [("light", 1.0), ("dark", 20 / 255)])
def test_it_is_drawn_light_and_dark(folder: Path, scheme: str, ground: float) -> None:
    picture = drawn((folder / "report.html").as_uri(), folder / f"{scheme}.png", scheme)
    assert picture.shape == (1600, 1200)
    assert picture[2, 2] == pytest.approx(ground, abs=0.02)
    # Text is drawn: many pixels are far from the ground.
    assert (abs(picture[::4, ::2] - ground) > 0.4).sum() > 2000


def test_it_is_drawn_at_the_width_of_a_phone(folder: Path) -> None:
    frame = put_in_frame(folder / "report.html")
    picture = drawn(framed_address(frame, 390, 1600), folder / "phone.png", "light", width=700)
    assert (picture[::2, :390:2] < 0.5).sum() > 2000
    assert (picture[::2, 391:690:2] > 0.99).all()
