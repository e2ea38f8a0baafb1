"""Headers of a response, read with care: none can be relied upon to make sense."""

import email.utils
import re
import time
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import httpx


def strong_etag(response: "httpx.Response") -> str:
    """Return the ETag where it promises equal bytes, else an empty string: a weak one does not."""
    etag: str = response.headers.get("ETag", "")
    return "" if etag.startswith("W/") else etag


def total_size(response: "httpx.Response", position: int) -> int | None:
    """Return the bytes of the file of which a response has the rest, from byte `position` on; None where it
    is not said."""
    total = byte_count(response.headers.get("Content-Range", "").rpartition("/")[2])
    if response.status_code == 206 and total is not None:
        return total
    length = byte_count(response.headers.get("Content-Length", ""))
    return position + length if length is not None else None


def byte_count(text: str) -> int | None:
    """Return the count of bytes that a header holds; None where it holds none."""
    return int(text) if re.fullmatch("[0-9]{1,18}", text) else None


def asked_pause(response: "httpx.Response") -> float | None:
    """Return the seconds that a server asks to be left alone; None where it does not ask."""
    value = response.headers.get("Retry-After", "").strip()
    if re.fullmatch("[0-9]+", value):
        return float(value)
    with suppress(TypeError, ValueError, OverflowError):
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    return None
