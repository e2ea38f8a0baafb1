"""The page of an answer in a browser: it fits a desk and a telephone, in light and in dark."""

from pathlib import Path

import pytest
import try_im_jobs
from browser import drawn, measured_widths, needs_browser, put_in_frame
from row_files import write
from test_split import texts
from try_im_jobs import Jobs, Try, folder_of

pytestmark = needs_browser
# The fixtures of this module.
jobs, attempt = try_im_jobs.jobs, try_im_jobs.attempt


def test_the_page_of_an_answer_fits_a_telephone_and_a_desk_in_light_and_in_dark(
    jobs: Jobs, attempt: Try, tmp_path: Path
) -> None:
    rows = ({"prompt": user[::-1], "completion": answer} for user, answer in texts(60))
    other = write(tmp_path, *rows, name="other.jsonl")
    jobs.gains["others-beside"] = 0.1
    arms = ("IT", "IM", "reweighted-IT", "IM-w0.1", "others-beside")
    assert attempt("--arms", *arms, "--out_of_domain", other) == 0
    page = folder_of(tmp_path) / "answer.html"
    frame = put_in_frame(page)
    for width in (320, 390, 1280):
        assert measured_widths(frame, width) == (width, width, 0)
    for scheme, ground in (("light", 1.0), ("dark", 20 / 255)):
        picture = drawn(page.as_uri(), tmp_path / f"{scheme}.png", scheme)
        assert picture[2, 2] == pytest.approx(ground, abs=0.02)
        # Text is drawn: many pixels are far from the ground.
        assert (abs(picture[::4, ::2] - ground) > 0.4).sum() > 2000
