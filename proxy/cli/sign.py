"""`firstview sign`: links that work for a while.

Belongs here: what is signed, and the report. Must not know: how a link is made.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import orjson

from proxy.errors import SettingsError
from proxy.records import REQUEST_ID
from proxy.security.links import Links
from proxy.settings import Settings, parse_duration
from proxy.storage import keys


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """How links are wanted. `life` as a person writes it; None: as long as can be."""

    life: str | None = None
    key: str | None = None
    url_safe: bool = False


def run(settings: Settings, what: Sequence[str], wish: Wish, *, as_json: bool) -> int:
    """Print a link to each of these clips or paths, a line each; returns the exit code.

    Raises SettingsError, BadRequest.
    """
    links = Links(settings.keys_of_links, settings.link_life)
    public, now, life = settings.public_url.rstrip("/"), int(time.time()), _life(wish.life)
    made: list[dict[str, Any]] = []
    for each in what:
        path = _path(each)
        link = links.sign(path, now, life=life, key=wish.key, url_safe=wish.url_safe)
        ends = datetime.fromtimestamp(link.expires, UTC)
        made.append({"path": path, "url": public + link.path, "key": link.key, "expires_at": ends})
    if as_json:
        print(orjson.dumps(made, option=orjson.OPT_INDENT_2).decode())
    else:
        print("\n".join(link["url"] for link in made))
    return 0


def _path(what: str) -> str:
    """The path that is meant; raises SettingsError for what is neither a path nor an id."""
    if what.startswith("/"):
        return what
    if REQUEST_ID.fullmatch(what) is None:
        raise SettingsError(
            f"firstview sign: {what!r} is no request id (letters, digits, - and _), and a path"
            " begins with /"
        )
    return keys.clip_path(what)


def _life(text: str | None) -> float | None:
    if text is None:
        return None
    try:
        return float(str(parse_duration(text)))
    except ValueError as error:
        raise SettingsError(f"--life: {error}") from error
