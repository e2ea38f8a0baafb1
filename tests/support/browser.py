"""Pages in a headless browser: what it draws, and whether anything is wider than the page."""

import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

_FILES = Path(__file__).parent / "pages"
_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
)
needs_browser = pytest.mark.skipif(
    shutil.which("chromium") is None, reason="no chromium on PATH to render the page with"
)


def chromium(folder: Path, *arguments: str) -> str:
    """Return what a headless browser prints; its profile lies in the folder."""
    done = subprocess.run(
        ["chromium", *_FLAGS, f"--user-data-dir={folder / 'profile'}", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def put_in_frame(page: Path) -> Path:
    """Put a copy of a page, which also measures itself, into a frame beside it; return the frame's file."""
    # The test's copy may run the test's script; the page itself may run none.
    text = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page.read_text(encoding="utf-8"))
    folder = page.parent / "framed"
    folder.mkdir(exist_ok=True)
    for name in ("frame.html", "frame.js", "measure.js"):
        shutil.copy(_FILES / name, folder)
    script = '<script src="measure.js"></script></body>'
    (folder / "page.html").write_text(text.replace("</body>", script), encoding="utf-8")
    return folder / "frame.html"


def framed_address(frame: Path, width: int, height: int) -> str:
    """Return the address that shows the frame in a size, in pixels."""
    return f"{frame.as_uri()}?width={width}&height={height}"


def measured_widths(frame: Path, width: int) -> tuple[int, int, int]:
    """Return the page's width, the width that scrolling reaches (pixels) and how many elements stand out."""
    dom = chromium(
        frame.parent,
        f"--window-size={width + 300},900",
        "--virtual-time-budget=3000",
        "--dump-dom",
        framed_address(frame, width, 800),
    )
    found = re.search(r'data-widths="(\d+) (\d+) (\d+)"', dom)
    assert found, dom[:500]
    inner, scrolled, too_wide = map(int, found.groups())
    return inner, scrolled, too_wide


def drawn(address: str, picture: Path, scheme: str, width: int = 1200, height: int = 1600) -> np.ndarray:
    """Return the red channel of what is drawn in the light or the dark scheme, float[rows, columns] from 0
    to 1."""
    import matplotlib.image

    chromium(
        picture.parent,
        # Blink's number for the preferred scheme: 0 is dark, 1 is light.
        f"--blink-settings=preferredColorScheme={int(scheme == 'light')}",
        f"--window-size={width},{height}",
        f"--screenshot={picture}",
        address,
    )
    return matplotlib.image.imread(picture)[:, :, 0]
