"""Seeds as a function of what they are for."""

import hashlib


def derived_seed(*parts: int | str) -> int:
    """Return a seed of 63 bits that depends on all parts: the same on every machine, unlike `hash`."""
    key = hashlib.blake2b(" ".join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(key, "big") >> 1
