"""The corridor's steps with a span around each: locate, fill, commit.

Belongs here: what each span is called and says. Must not know: how any step works. Who is traced
is decided once, at the start: without a tracer none of this is there, and nothing asks for it.

A span's parent is whatever is traced around it. A fill's task is started by whoever locates the
clip, and storing it by the fill, so that asyncio's own contexts make the tree: view, locate, fill,
commit. Viewers who join a fill have a link to it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Iterator
from typing import TYPE_CHECKING, Any, Final

from proxy.delivery.commit import Commits
from proxy.delivery.fill import Fills
from proxy.delivery.flights import Flight
from proxy.delivery.kept import Kept
from proxy.delivery.locate import Locator
from proxy.delivery.view import View, Wanted
from proxy.errors import FirstviewError

if TYPE_CHECKING:  # an optional extra
    from opentelemetry.trace import Span, Tracer

FAILED: Final = 500
"""The least status of what has failed, rather than been refused."""


class TracedLocator(Locator):
    """Finds clips, and tells where each was."""

    def __init__(self, tracer: Tracer, **parts: Any) -> None:  # noqa: ANN401 - `Locator`'s own
        """Take the tracer, and what `Locator` takes."""
        super().__init__(**parts)
        self._tracer = tracer

    async def find(
        self, request_id: str, wanted: Wanted | None = None, *, admitted: bool = False
    ) -> View:
        """See `Locator.find`."""
        with spanned(self._tracer, "locate") as span:
            span.set_attribute("firstview.request_id", request_id)
            view = await super().find(request_id, wanted, admitted=admitted)
            span.set_attribute("firstview.tier", view.tier)
            filling = None if view.flight is None else view.flight.account.span
            if view.collapsed and filling is not None:
                span.add_link(filling)
            return view


class TracedFills(Fills):
    """Runs fills, and tells what each came to."""

    def __init__(self, tracer: Tracer, **parts: Any) -> None:  # noqa: ANN401 - `Fills`' own
        """Take the tracer, and what `Fills` takes."""
        super().__init__(**parts)
        self._tracer = tracer

    async def run(self, flight: Flight) -> None:
        """See `Fills.run`."""
        account = flight.account
        with spanned(self._tracer, "fill") as span:
            context = span.get_span_context()
            account.span, account.trace = context, trace_of(span)
            span.set_attribute("firstview.request_id", flight.request_id)
            try:
                await super().run(flight)
            finally:
                span.set_attributes(
                    {
                        "firstview.tier": account.tier,
                        "firstview.source": account.source or "",
                        "firstview.bytes": account.bytes,
                        "firstview.resumes": account.resumes,
                        "firstview.joins": account.joins,
                    }
                )
                if flight.error is not None:
                    fail(span, flight.error.slug)


class TracedCommits(Commits):
    """Writes clips into the bucket, and tells how long that took."""

    def __init__(self, tracer: Tracer, *parts: Any) -> None:  # noqa: ANN401 - `Commits`' own
        """Take the tracer, and what `Commits` takes."""
        super().__init__(*parts)
        self._tracer = tracer

    async def commit(self, kept: Kept, sha256: str, confirm: Callable[[], Awaitable[None]]) -> None:
        """See `Commits.commit`."""
        with spanned(self._tracer, "commit") as span:
            span.set_attribute("firstview.request_id", kept.facts.request_id)
            span.set_attribute("firstview.bytes", kept.facts.length)
            span.set_attribute("firstview.tries", kept.tries)
            await super().commit(kept, sha256, confirm)


def trace_of(span: Span) -> str | None:
    """Return the trace that a span belongs to, in hex, if it is going to be found anywhere."""
    context = span.get_span_context()
    return f"{context.trace_id:032x}" if context.trace_flags.sampled else None


@contextlib.contextmanager
def spanned(tracer: Tracer, name: str, **more: Any) -> Iterator[Span]:  # noqa: ANN401 - OpenTelemetry's
    """Have a span around a block. Of an error that leaves it only the name is told.

    Its text and its trace, which OpenTelemetry would send by itself, may quote what is secret, and
    no guard stands in their way as one does in the log's.
    """
    with tracer.start_as_current_span(
        name, record_exception=False, set_status_on_exception=False, **more
    ) as span:
        try:
            yield span
        except FirstviewError as error:
            if error.status >= FAILED:  # not a clip that is none
                fail(span, error.slug)
            raise
        except Exception:
            fail(span, FirstviewError.slug)
            raise


def fail(span: Span, slug: str | None) -> None:
    """Mark a span as failed."""
    from opentelemetry.trace import StatusCode  # noqa: PLC0415 - an optional extra

    span.set_status(StatusCode.ERROR, slug)
