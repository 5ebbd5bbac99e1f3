"""Gating: whether a clip is for everybody, or for those alone who have a signed link.

Belongs here: who decides that: the generation itself, else the deployment. Must not know: links,
HTTP.
"""

from __future__ import annotations

from proxy.records import ClipFacts, Generation


class Gating:
    """The rule; `by_default` holds for generations that say nothing."""

    def __init__(self, *, by_default: bool) -> None:
        """Take what the deployment says."""
        self._by_default = by_default

    def holds(self, row: Generation | None, facts: ClipFacts | None = None) -> bool:
        """Whether a clip is gated, as far as is known by now.

        What the catalog says counts. Without a row (it is away, or knows nothing of the clip) that
        is what was written down beside the clip's bytes when they came in.
        """
        said = row.gated if row is not None else None if facts is None else facts.gated
        return self._by_default if said is None else said
