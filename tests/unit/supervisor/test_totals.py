"""Sums over workers that come and go: no counter ever goes back."""

from __future__ import annotations

from typing import Any

from proxy.supervisor.totals import Totals
from proxy.telemetry.metrics import Metrics
from proxy.telemetry.samples import Family, read, to_wire


class Says:
    """The channel of a worker that answers with its metrics, or does as it is told."""

    def __init__(self) -> None:
        self.metrics = Metrics()
        self.instead: Exception | None = None

    async def ask(self, _what: str, _timeout: float) -> list[Any]:
        if self.instead is not None:
            raise self.instead
        return to_wire(read(self.metrics.registry))


class Worker:
    """A worker, as far as totals are concerned."""

    def __init__(self) -> None:
        self.says = Says()

    @property
    def channel(self) -> Any:
        return self.says

    def stored(self, count: int) -> None:
        self.says.metrics.stored.inc(count)
        self.says.metrics.viewers.set(count)


def value(families: list[Family], name: str) -> float:
    return sum(
        amount for family in families for (key, _), amount in family.samples.items() if key == name
    )


async def test_a_worker_that_has_ended_stays_in_the_sum_of_counters_but_not_of_gauges() -> None:
    totals, one, other = Totals(Metrics()), Worker(), Worker()
    for worker, count in ((one, 3), (other, 4)):
        totals.began(worker)
        worker.stored(count)
    both = await totals.gather([one, other])
    assert (value(both, "firstview_stored_total"), value(both, "firstview_viewers")) == (7, 7)
    totals.ended(one)
    left = await totals.gather([other])
    assert (value(left, "firstview_stored_total"), value(left, "firstview_viewers")) == (7, 4)


async def test_the_last_word_of_a_worker_counts_even_if_nobody_asked() -> None:
    totals, worker = Totals(Metrics()), Worker()
    totals.began(worker)
    worker.stored(5)
    totals.said(worker, to_wire(read(worker.says.metrics.registry)))
    totals.ended(worker)
    assert value(await totals.gather([]), "firstview_stored_total") == 5


async def test_a_worker_that_is_silent_counts_with_what_it_said_last_and_is_itself_counted() -> (
    None
):
    totals, worker = Totals(Metrics()), Worker()
    totals.began(worker)
    worker.stored(5)
    await totals.gather([worker])
    worker.says.instead = TimeoutError()
    found = await totals.gather([worker])
    assert value(found, "firstview_stored_total") == 5
    assert value(found, "firstview_viewers") == 0
    assert value(found, "firstview_worker_silences_total") == 1


async def test_an_answer_that_comes_after_a_workers_end_is_not_counted_twice() -> None:
    totals, worker = Totals(Metrics()), Worker()
    totals.began(worker)
    worker.stored(5)
    sent = to_wire(read(worker.says.metrics.registry))
    totals.said(worker, sent)
    totals.ended(worker)
    totals.said(worker, sent)
    assert value(await totals.gather([]), "firstview_stored_total") == 5
