"""What the headers of a response say, none of which can be relied upon to make sense."""

import email.utils
import re
import time
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import httpx


def strong_etag(response: "httpx.Response") -> str:
    """What identifies the bytes; empty where there is none: a weak validator does not promise equal bytes."""
    etag: str = response.headers.get("ETag", "")
    return "" if etag.startswith("W/") else etag


def total_size(response: "httpx.Response", position: int) -> int | None:
    """The size of the file of which a response has the rest, from `position` on; None where it is not
    said."""
    of_all = number(response.headers.get("Content-Range", "").rpartition("/")[2])
    if response.status_code == 206 and of_all is not None:
        return of_all
    length = number(response.headers.get("Content-Length", ""))
    return position + length if length is not None else None


def number(text: str) -> int | None:
    """The count of bytes that a header holds; None where it holds none."""
    return int(text) if re.fullmatch("[0-9]{1,18}", text) else None


def asked_pause(response: "httpx.Response") -> float | None:
    """The seconds that a server asks to be left alone."""
    value = response.headers.get("Retry-After", "").strip()
    if re.fullmatch("[0-9]+", value):
        return float(value)
    with suppress(TypeError, ValueError, OverflowError):
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    return None
