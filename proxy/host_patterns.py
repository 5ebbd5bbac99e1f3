"""Patterns of the hosts that clips may be fetched from, as the settings write them.

Belongs here: how one is written, what is wrong with one that is none, and what it covers. Must not
know: whole URLs, or what else makes one untrusted.
"""

from __future__ import annotations

import functools
import ipaddress
import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Final, Self

_LONGEST_HOST: Final = 253
_HOSTS_REMEMBERED: Final = 256  # a file of a million rows names a handful
_LABEL: Final = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")
_NUMBER: Final = re.compile(r"[0-9]+|0x[0-9a-f]*")


@dataclass(frozen=True, slots=True)
class HostPattern:
    """One entry of the list: a host, or with `wildcard` all names below it, and a path prefix."""

    host: str
    wildcard: bool
    prefix: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `fal.media`, `*.fal.media` or `storage.googleapis.com/fal-bucket`.

        Raises ValueError, in the owner's words, for anything else, and for a bare `*`, which would
        be an open proxy.
        """
        if "://" in text:
            msg = "is an address: write its host alone, such as fal.media"
            raise ValueError(msg)
        if text.strip() == "*":
            msg = (
                "would let anybody fetch anything through this origin: name the hosts, such as"
                " fal.media,*.fal.media"
            )
            raise ValueError(msg)
        host, _, prefix = text.strip().partition("/")
        wildcard = host.startswith("*.")
        host = host.removeprefix("*.")
        address = literal(host)
        if wildcard and address is not None:
            msg = "is no pattern: an address has no names below it"
            raise ValueError(msg)
        try:
            name = host_name(host) if address is None else str(address)
        except ValueError as error:
            msg = f"is no pattern, {error}: write fal.media, *.fal.media or storage.example/bucket"
            raise ValueError(msg) from error
        return cls(name, wildcard, "/" + prefix.strip("/") if prefix.strip("/") else "")

    def matches(self, host: str, path: str) -> bool:
        """Tell whether `host` (lower case, ASCII) and `path` are covered by this entry."""
        named = host.endswith("." + self.host) if self.wildcard else host == self.host
        return named and (not self.prefix or path.startswith(self.prefix + "/"))


@functools.lru_cache(_HOSTS_REMEMBERED)
def literal(host: str) -> IPv4Address | IPv6Address | None:
    """Return the address that `host` spells properly, or None; brackets are allowed for."""
    try:
        return ipaddress.ip_address(host.removeprefix("[").removesuffix("]"))
    except ValueError:
        return None


@functools.lru_cache(_HOSTS_REMEMBERED)
def host_name(host: str) -> str:
    """Return `host` as lower-case ASCII without a trailing dot. Raises ValueError if it is none.

    A name whose last label is a number is none: resolvers take `2130706433`, `0x7f000001`,
    `127.1` and `0177.0.0.1` for addresses (WHATWG URL, "ends in a number").
    """
    try:
        name = host.encode("idna").decode("ascii").lower().removesuffix(".")
    except UnicodeError:  # whose words are those of its codec
        name = ""
    labels = name.split(".")
    if len(name) > _LONGEST_HOST or not all(_LABEL.fullmatch(label) for label in labels):
        msg = "it is not a host name"
        raise ValueError(msg)
    if _NUMBER.fullmatch(labels[-1]):
        msg = "it is an address in disguise"
        raise ValueError(msg)
    return name
