"""Signed links: making them, and telling whether one holds.

Belongs here: the token, in the form that Cloudflare's rules language checks by itself. Must not
know: HTTP, clips, where keys come from. Pure.

    /videos/<id>.mp4?verify=<Unix time>-<base64 of HMAC-SHA256(secret, message + Unix time)>

The message is all that stands before the separator, which is `?verify=` or `&verify=`, always eight
characters; nothing follows the token. A link is good while now < its time + life. One that is to
end sooner is signed with an earlier time, so that one rule with one life checks all of them.

developers.cloudflare.com/ruleset-engine/rules-language/functions/#hmac-validation
"""

from __future__ import annotations

import hmac
import re
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote, unquote

from proxy.errors import BadRequest
from proxy.secret_lists import NamedKey

PARAMETER: Final = "verify"
AHEAD: Final = 5
"""Seconds that the clock of whoever signed may be ahead of ours."""

_SEPARATOR: Final = f"{PARAMETER}="
_TOKEN: Final = re.compile(r"([0-9]{10})-(.*)", re.DOTALL)
# The three characters in which both alphabets of RFC 4648 differ, and padding, may be encoded or
# not: programs that tidy up addresses do either. Nothing else may stand for anything but itself.
_RESPELT: Final = re.compile(r"%2[Bb]|%2[Ff]|%3[Dd]|[+/]")
_RESPELLING: Final = {"%2b": "-", "%2f": "_", "%3d": "=", "+": "-", "/": "_"}
_NOTHING: Final = "0000000000"
_LONGEST: Final = 128
"""Characters of a token that are looked at; a good one has at most 60."""
_PATH: Final = re.compile(r"/[!-~]*")
_NAMED: Final = re.compile(rf"{PARAMETER}(?:=|%(?:25)*3D)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Link:
    """A signed address. `path` is all of it but scheme and host; `expires` is Unix time."""

    path: str
    key: str
    expires: int


class Links:
    """Signs and checks with some keys: the first signs, all are accepted."""

    def __init__(self, keys: Sequence[NamedKey], life: float) -> None:
        """Take the keys, newest first, and the longest life of a link in seconds."""
        self._keys = tuple(keys)
        self._secrets = tuple(key.secret for key in keys) or (b"none",)
        self._can_hold = bool(keys)
        self.life = int(life)

    def sign(
        self,
        path: str,
        now: int,
        *,
        life: float | None = None,
        key: str | None = None,
        url_safe: bool = False,
    ) -> Link:
        """Sign a path, with its query if it has one, for `life` seconds from `now` on.

        `key` names another key than the newest; `url_safe` writes the alphabet of RFC 4648 §5, for
        a rule with the `s` flag. Raises BadRequest for what cannot be signed.
        """
        chosen, lasts = self._key(key), self._lasting(life)
        before, mark, query = path.partition("?")
        if _PATH.fullmatch(path) is None or "#" in path:
            raise BadRequest("a path begins with / and is ASCII, encoded where it has to be")
        if mark and _has_parameter(query):
            raise BadRequest(f"the path has a parameter {PARAMETER} already")
        if mark and not query:
            path = before
        stamp = f"{now - self.life + lasts:010d}"
        if len(stamp) != len(_NOTHING):
            raise BadRequest("no link of this time can be made")
        mac = _mac(chosen.secret, path + stamp)
        text = urlsafe_b64encode(mac) if url_safe else b64encode(mac)
        token = text.rstrip(b"=").decode() if url_safe else quote(text, safe="")
        separator = "&" if "?" in path else "?"
        signed = f"{path}{separator}{_SEPARATOR}{stamp}-{token}"
        return Link(path=signed, key=chosen.name, expires=now + lasts)

    def holds(self, path: str, query: str, now: float) -> bool:
        """Whether this query's link is good for this path, both as they came, at `now`.

        Every link costs the same, good or not: each key is tried, and nothing is told before.
        """
        before, stamp, mac, formed = _read(query)
        message = f"{path}?{before}{stamp}" if before else f"{path}{stamp}"
        right = False
        for secret in self._secrets:
            good = urlsafe_b64encode(_mac(secret, message)).rstrip(b"=")
            right |= hmac.compare_digest(good, mac)
        begun = int(stamp)
        timely = begun - AHEAD <= now < begun + self.life
        return right & timely & formed & self._can_hold

    def _key(self, name: str | None) -> NamedKey:
        if not self._keys:
            raise BadRequest("FIRSTVIEW_SIGNING_KEYS is not set: there is no key to sign with")
        if name is None:
            return self._keys[0]
        for key in self._keys:
            if key.name == name:
                return key
        raise BadRequest(f"there is no key named {name[:40]!r} in FIRSTVIEW_SIGNING_KEYS")

    def _lasting(self, life: float | None) -> int:
        lasts = self.life if life is None else life
        if not 1 <= lasts <= self.life:
            raise BadRequest(
                f"a link lives between 1 and {self.life} seconds (FIRSTVIEW_LINK_LIFE, which is"
                " also the ttl of the rule at the edge)"
            )
        return int(lasts)


def without_token(path: str) -> str:
    """A path and query as they may be logged: whoever reads the log must not get in by it.

    What makes links may encode too much of them: a token that does not hold where it is may hold
    where it belongs.
    """
    found = _NAMED.search(path)
    return path if found is None else f"{path[: found.end()]}…"


def _read(query: str) -> tuple[str, str, bytes, bool]:
    """What was signed of the query, the time, the MAC in one alphabet, and whether all is there.

    What is not there is replaced by something as long.
    """
    before, mark, token = query.rpartition(f"&{_SEPARATOR}")
    formed = bool(before)
    if not mark:
        before, token = "", query.removeprefix(_SEPARATOR)
        formed = query.startswith(_SEPARATOR)
    formed &= len(token) <= _LONGEST and not _has_parameter(before)
    found = _TOKEN.fullmatch(token[:_LONGEST])
    stamp, mac = (found[1], found[2]) if found is not None else (_NOTHING, "")
    plain = _RESPELT.sub(lambda match: _RESPELLING[match[0].lower()], mac)
    return before, stamp, plain.removesuffix("=").encode("utf-8", "replace"), formed


def _has_parameter(query: str) -> bool:
    """Whether a query names the token's parameter, however it spells that."""
    names = (parameter.partition("=")[0] for parameter in query.split("&"))
    return any(unquote(name) == PARAMETER for name in names)


def _mac(secret: bytes, message: str) -> bytes:
    return hmac.digest(secret, message.encode("utf-8", "surrogatepass"), "sha256")
