"""Where the video sits in what a model returned, be it in a webhook or from fal's queue API.

Belongs here: the forms that models' outputs have, and what becomes of each as a notice. Must not
know: envelopes, signatures, how the output was come by. Pure.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from proxy.errors import SourceUntrusted
from proxy.records import REQUEST_ID, Notice, Registration

MOST_VIDEOS: Final = 16
"""Videos of one generation that are kept."""

_LONGEST_REASON: Final = 2000
_LONGEST_LOGGED: Final = 300
_LONGEST_TYPE: Final = 200
_LONGEST_HOST: Final = 253
_MOST_NAMED: Final = 8
_MOST_BYTES: Final = 2**63 - 1
_MOST_PIXELS: Final = 2**31 - 1
_ADDRESS: Final = re.compile(r"(?:(?<=The address: )|data:(?=\S)|[\w+.-]*://).*", re.DOTALL)

Check = Callable[[str], str]
"""Returns a URL in the spelling to fetch it by; raises SourceUntrusted if it may not be fetched."""


class NoVideo(ValueError):
    """The output holds no clip; the text says what it holds instead."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Video:
    """One video of an output: bytes, seconds and pixels as the model gave them, if it did."""

    url: str
    content_type: str | None = None
    file_size: int | None = None
    duration: float | None = None
    width: int | None = None
    height: int | None = None


def find_videos(output: object) -> list[Video]:
    """Return the videos of a model's raw output: the clip first, each URL once, at most 16.

    Looks at `video` (object, array or URL) and `videos`; only without those at `video_url`,
    which other models use to repeat their input. `preview_video`, `mask_video` and their like are
    never the clip. What is malformed in an optional field is taken as not said. Raises NoVideo.
    """
    if not isinstance(output, dict):
        what = "null" if output is None else f"not a JSON object but {_kind(output)}"
        raise NoVideo(f"The model's output is {what}, so there is no video in it.")
    found = _videos(output.get("video"), output.get("videos")) or _videos(output.get("video_url"))
    if not found:
        raise NoVideo(_what_instead(output))
    first, *others = found
    if _is_data(first.url):
        raise NoVideo(
            "The video came inside the output, as a data: URI: ask for the generation without"
            " sync_mode."
        )
    return [first, *(video for video in others if not _is_data(video.url))][:MOST_VIDEOS]


def notice_of(request_id: str, output: object, check: Check) -> Notice:
    """Turn a model's raw output into the notice to take; never raises.

    The clip has the request's id, the others `<request_id>_2`, `_3`, …; those whose id would be
    too long, or whose URL `check` refuses, are left out. Where the clip's own URL is refused, the
    notice is a failure that holds the URL, because nothing else remembers it.
    """
    try:
        first, *others = find_videos(output)
        clips = [_registration(request_id, first, check)]
    except NoVideo as error:
        return Notice(request_id=request_id, failure=readable(str(error)))
    except _Refused as error:
        return Notice(request_id=request_id, failure=readable(error.reason))
    for number, video in enumerate(others, start=2):
        name = f"{request_id}_{number}"
        if REQUEST_ID.fullmatch(name) is None:
            break
        try:
            clips.append(_registration(name, video, check))
        except _Refused:
            continue
    return Notice(request_id=request_id, clips=tuple(clips))


def readable(reason: str) -> str:
    """Make a reason of foreign text fit for a row and a log: one line, at most 2000 characters."""
    text = reason.encode("utf-8", "replace").decode()
    text = "".join(each if each.isprintable() else " " for each in text[: 2 * _LONGEST_REASON])
    text = " ".join(text.split())
    return text if len(text) <= _LONGEST_REASON else f"{text[: _LONGEST_REASON - 1]}…"


def for_the_log(reason: str) -> str:
    """Shorten a reason, and leave out the addresses in it: whoever has one that is signed may read.

    They are `notice_of`'s own, and those in fal's words; each to the end, as spaces prove nothing.
    """
    return _ADDRESS.sub("…", reason[:_LONGEST_LOGGED])


class _Refused(Exception):
    """A URL that may not be fetched."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def _registration(request_id: str, video: Video, check: Check) -> Registration:
    try:
        url = check(video.url)
    except SourceUntrusted as error:
        host = _host(video.url)
        raise _Refused(
            f"{error.detail} Its host is {host}; FIRSTVIEW_UPSTREAM_HOSTS says which are allowed."
            f" The address: {video.url}"
        ) from error
    return Registration(
        request_id=request_id,
        fal_url=url,
        content_length=video.file_size,
        duration=video.duration,
        width=video.width,
        height=video.height,
    )


# --- the forms ----------------------------------------------------------------------------------


def _videos(*members: object) -> list[Video]:
    found: dict[str, Video] = {}
    for member in members:
        for item in member if isinstance(member, list) else [member]:
            video = _video(item)
            if video is not None:
                found.setdefault(video.url, video)
    return list(found.values())


def _video(item: object) -> Video | None:
    """Read one file object, or the URL that some models return in its place."""
    if isinstance(item, str):
        return Video(url=item.strip()) if item.strip() else None
    if not isinstance(item, dict):
        return None
    url = item.get("url")
    if not isinstance(url, str) or not url.strip():
        return None
    kind = item.get("content_type")
    return Video(
        url=url.strip(),
        content_type=kind if isinstance(kind, str) and 0 < len(kind) <= _LONGEST_TYPE else None,
        file_size=_whole(item.get("file_size"), _MOST_BYTES),
        duration=_seconds(item.get("duration")),
        width=_whole(item.get("width"), _MOST_PIXELS),
        height=_whole(item.get("height"), _MOST_PIXELS),
    )


def _whole(value: object, most: int) -> int | None:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool):
        return None
    return value if 0 < value <= most else None


def _seconds(value: object) -> float | None:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if 0 < number < math.inf else None


# --- words --------------------------------------------------------------------------------------


def _what_instead(output: dict[object, object]) -> str:
    present = [name for name in ("video", "videos", "video_url") if name in output]
    for name in present:
        if output[name] not in (None, "", []):
            return f"The output's {name!r} holds no address of a video."
    if present:
        return f"The output's {present[0]!r} is empty."
    if not output:
        return "The output is empty: there is no video in it."
    names = ", ".join(str(name)[:40] for name in list(output)[:_MOST_NAMED])
    more = ", …" if len(output) > _MOST_NAMED else ""
    return f"There is no video in the output; it has: {names}{more}."


def _kind(value: object) -> str:
    kinds = {list: "an array", str: "a text", bool: "a truth value", int: "a number"}
    return kinds.get(type(value), "a number" if isinstance(value, float) else "something else")


def _is_data(url: str) -> bool:
    return url[:5].lower() == "data:"


def _host(url: str) -> str:
    try:
        host = urlsplit(url).hostname
    except ValueError:
        host = None
    return host[:_LONGEST_HOST] if host else "none"
