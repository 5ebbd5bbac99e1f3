"""Plain counts are exact whenever somebody looks, and never counted twice."""

from __future__ import annotations

from prometheus_client import Counter, generate_latest

from proxy.telemetry.counts import CountingRegistry


def test_a_count_is_what_was_added_at_every_look() -> None:
    registry = CountingRegistry()
    counter = Counter("replies", "Replies.", ["tier"], registry=registry)
    count = registry.count(counter.labels("disk"))
    for total in (0, 3, 3, 10):
        count.value = total
        assert registry.get_sample_value("replies_total", {"tier": "disk"}) == total
        assert f'replies_total{{tier="disk"}} {total}.0' in generate_latest(registry).decode()


def test_a_series_may_be_counted_both_ways() -> None:
    registry = CountingRegistry()
    counter = Counter("bytes", "Bytes.", registry=registry)
    count = registry.count(counter)
    count.value += 5
    counter.inc(2)
    assert registry.get_sample_value("bytes_total") == 7
