"""The values that labels can have: few, known beforehand, never what somebody has sent.

Belongs here: lists of them. Must not know: when any of them occurs. Those that are an enumeration
of a part above this one are repeated here, and a test compares both.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from proxy import errors

NEAR: Final = ("disk", "bucket")
"""Tiers of hits."""
TIERS: Final = (*NEAR, "flight", "upstream")
"""Where a reply about a clip came from; `flight` is another viewer's fill."""
NONE: Final = "none"
"""What is said where there is no tier or source: an error, a webhook."""
ORIGINS: Final = ("upstream", "bucket", "disk")
"""What a clip is filled from; `disk` is a local copy that the bucket has lost."""
HALF_OPEN: Final = "half-open"
BREAKERS: Final = ("closed", "open", HALF_OPEN)
OTHER: Final = "other"
OK: Final = "ok"
FAILED: Final = "failed"
CANCELLED: Final = "cancelled"


def _tree(kind: type[errors.FirstviewError]) -> Iterator[type[errors.FirstviewError]]:
    yield kind
    for below in kind.__subclasses__():
        if below.__module__ == errors.__name__:
            yield from _tree(below)


def slugs(*kinds: type[errors.FirstviewError]) -> tuple[str, ...]:
    """The names of these errors and of all below them, each once."""
    return tuple(dict.fromkeys(one.slug for kind in kinds for one in _tree(kind)))


INTERNAL: Final = errors.FirstviewError.slug
RESTING: Final = "source-resting"
"""A host whose breaker is open; that error is made above this part."""
OF_SOURCES: Final = (*slugs(errors.SourceError), RESTING, errors.Overloaded.slug, INTERNAL)
OF_BUCKETS: Final = (*slugs(errors.BucketError), errors.CorruptClip.slug, INTERNAL)
OF_CATALOGS: Final = slugs(errors.CatalogError)
STOPPED: Final = "stopped"
"""How a reply ended that this process cut off, because it had to stop itself."""
OF_VIEWERS: Final = tuple(error.slug for error in (errors.ViewerLeft, errors.ViewerStalled))

STATUSES: Final = tuple(
    sorted({"204", "302", "404", *(str(one.status) for one in _tree(errors.FirstviewError))})
)
"""Of replies that are about no clip, but for 200."""
