"""Where a studio listens and whom it lets in: addresses, names, origins and the key."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import urlsplit

from suffuse.errors import SuffuseError

LOCAL = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True)
class Door:
    """Where a studio listens and whom it lets in.

    `hosts` are the names that it may be called by beside the usual ones; `origins` those of other
    sites (`https://example.org`) whose pages may use it.
    """

    host: str = "127.0.0.1"
    api_key: str | None = None
    hosts: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()

    def check(self, insecure: bool = False) -> None:
        """Raises SuffuseError for an address that others reach without a key, for a key that no
        header can carry, and for an origin that is none."""
        if self.api_key is None and not insecure and not _loopback(self.host):
            raise SuffuseError(
                f"anyone who reaches {self.host} could use the studio: give --api-key (or "
                "SUFFUSE_API_KEY), or say --insecure"
            )
        if self.api_key is not None and not (self.api_key.isascii() and self.api_key.isprintable()):
            raise SuffuseError("the API key must be of printable ASCII letters: choose another")
        if self.api_key is not None and not self.api_key.strip():
            raise SuffuseError("the API key is empty: give one, or none")
        for origin in self.origins:
            parts = urlsplit(origin)
            if (
                parts.scheme not in ("http", "https")
                or origin != f"{parts.scheme}://{parts.netloc}"
            ):
                raise SuffuseError(
                    f"--cors-origin takes an address such as https://example.org, not {origin!r}"
                )

    def called(self, name: str) -> bool:
        """Whether `name`, of a Host header without its port, is one of this studio's.

        Where it listens on every address of the machine, any number is its own too: a page of
        another site can make a name lead here, and never a number.
        """
        if name in LOCAL or name in (self.host.lower(), *map(str.lower, self.hosts)):
            return True
        return _address(self.host) in ("0.0.0.0", "::") and _address(name) is not None

    def trusts(self, origin: str, host: str) -> bool:
        """Whether a page of `origin` may ask; `host` is what the Host header says."""
        if origin in self.origins:
            return True
        try:
            parts = urlsplit(origin)
            here = urlsplit(f"{parts.scheme}://{host}")
            usual = {"http": 80, "https": 443}.get(parts.scheme)
            same = (parts.hostname, parts.port or usual) == (here.hostname, here.port or usual)
        except ValueError:  # a port that is no number
            return False
        if usual is None or not parts.hostname:
            return False
        return same or parts.hostname in map(str.lower, self.hosts)  # a proxy may rewrite Host

    def opens(self, authorization: str) -> bool:
        """Whether this Authorization header holds the key, compared in constant time.

        Bearer KEY; Basic with the key as password, or with `user:password` being the key.
        """
        assert self.api_key is not None
        kind, _, value = authorization.partition(" ")
        given = [value.strip()] if kind.lower() == "bearer" else _basic(kind, value)
        return sum(_same(one, self.api_key) for one in given) > 0  # all are compared


def _same(given: str, key: str) -> bool:
    digests = (hashlib.sha256(text.encode("utf-8", "replace")).digest() for text in (given, key))
    return hmac.compare_digest(*digests)


def _basic(kind: str, value: str) -> Iterable[str]:
    if kind.lower() != "basic":
        return []
    try:
        pair = base64.b64decode(value.strip(), validate=True).decode()
    except (binascii.Error, ValueError):
        return []
    return [pair, pair.partition(":")[2]]


def _address(name: str) -> str | None:
    try:
        return str(ipaddress.ip_address(name))
    except ValueError:
        return None


def _loopback(host: str) -> bool:
    if host.lower() == "localhost":
        return True
    address = _address(host)
    return address is not None and ipaddress.ip_address(address).is_loopback
