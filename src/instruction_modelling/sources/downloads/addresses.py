"""Addresses: which one is asked in place of a file's own, where a redirect may lead, and where a token may
go.

A mirror is set for each host by an environment variable:
IM_MIRROR_RAW_GITHUBUSERCONTENT_COM=https://mirror.example/gh asks for https://raw.githubusercontent.com/PATH
at https://mirror.example/gh/PATH. HF_ENDPOINT is huggingface.co's."""

from collections.abc import Mapping
from urllib.parse import urljoin, urlsplit

from instruction_modelling.errors import UserError

TOKEN_HOST, TOKEN_VARIABLE = "huggingface.co", "HF_TOKEN"
LOOPBACK = {"localhost", "127.0.0.1", "::1"}


class WrongAddress(Exception):
    """Why a redirect cannot be followed."""


def mirror_variable(host: str) -> str:
    """Return the name of the environment variable that holds a host's mirror."""
    return "IM_MIRROR_" + host.upper().replace(".", "_").replace("-", "_")


def asked_address(url: str, environment: Mapping[str, str]) -> str:
    """Return the address that is really asked for `url`: its host's mirror's, if there is one.

    Raises:
        UserError: the mirror is not an http(s) address.
    """
    parts = urlsplit(url)
    host = parts.hostname or ""
    variable = mirror_variable(host)
    base = environment.get(variable)
    if not base and host == TOKEN_HOST:
        variable, base = "HF_ENDPOINT", environment.get("HF_ENDPOINT")
    if not base:
        return url
    try:
        mirror = urlsplit(base)
        usable = mirror.scheme in ("http", "https") and bool(mirror.hostname) and (mirror.port or 1) > 0
    except ValueError:
        usable = False
    if not usable:
        # Its value is not shown: a mirror's address may hold a password.
        raise UserError(
            f"{variable} in the environment is not an address such as https://mirror.example/path"
        )
    return base.rstrip("/") + parts.path + (f"?{parts.query}" if parts.query else "")


def next_address(url: str, location: str, environment: Mapping[str, str]) -> str:
    """Return where a redirect from `url` leads, or that host's mirror.

    Raises:
        WrongAddress: it is no address of the web, or leads out of an encrypted connection.
        UserError: the mirror is not an http(s) address.
    """
    try:
        target = urljoin(url, location)
        parts = urlsplit(target)
        scheme, host, _ = parts.scheme, parts.hostname, parts.port
    except ValueError:
        raise WrongAddress("it leads to what is not an address") from None
    if scheme not in ("http", "https") or not host:
        raise WrongAddress(f"it leads to {scheme or 'no'} address")
    asked = asked_address(target, environment)
    if asked == target and scheme == "http" and urlsplit(url).scheme == "https" and host not in LOOPBACK:
        raise WrongAddress(
            f"it leads from https to http://{host}, where anyone on the way could change the file"
        )
    return asked


def host_and_port(url: str) -> str:
    """Return the host and port of an address, without a password."""
    return urlsplit(url).netloc.rpartition("@")[2]


def token_for(url: str, environment: Mapping[str, str]) -> str | None:
    """Return the token to send when `url` is asked for; None where there is none, or its host is not the
    token's.

    Raises:
        UserError: what the environment holds cannot be a token.
    """
    token = environment.get(TOKEN_VARIABLE, "").strip()
    if not token or urlsplit(url).hostname != TOKEN_HOST:
        return None
    if not (token.isascii() and token.isprintable() and " " not in token):
        # Nor is this value shown.
        raise UserError(
            f"{TOKEN_VARIABLE} in the environment is not a token: it has spaces, line breaks or letters that "
            "no token has; copy it again"
        )
    return token


def may_carry(token_url: str, url: str) -> bool:
    """Return whether a token meant for the address `token_url` may be sent to `url`: the same host and port,
    and encrypted (or this machine)."""
    meant, asked = urlsplit(token_url), urlsplit(url)
    return (meant.scheme, meant.hostname, meant.port) == (asked.scheme, asked.hostname, asked.port) and (
        asked.scheme == "https" or asked.hostname in LOOPBACK
    )
