"""Sums of several processes' metrics."""

from __future__ import annotations

from typing import Any

import orjson
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.parser import text_string_to_metric_families

from proxy.telemetry.metrics import Metrics
from proxy.telemetry.of_processes import without_vitals
from proxy.telemetry.samples import counted, from_wire, merged, read, render, to_wire


def process(requests: int, viewers: int, *seconds: float) -> CollectorRegistry:
    registry = CollectorRegistry()
    counter = Counter("requests", "Replies.", ["status"], registry=registry)
    counter.labels("200").inc(requests)
    Gauge("viewers", "Now.", registry=registry).set(viewers)
    histogram = Histogram("wait", "Time.", buckets=(1, 2), registry=registry)
    for one in seconds:
        histogram.observe(one)
    return registry


def values(text: bytes) -> dict[tuple[str, Any], float]:
    return {
        (sample.name, tuple(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }


def test_counters_gauges_and_histograms_of_several_processes_are_summed() -> None:
    parts = [read(process(3, 1, 0.5)), read(process(4, 2, 0.5, 1.5, 9))]
    found = values(render(merged(parts)))
    assert found["requests_total", ("200",)] == 7
    assert found["viewers", ()] == 3
    assert found["wait_bucket", ("1.0",)] == 2
    assert found["wait_bucket", ("2.0",)] == 3
    assert found["wait_bucket", ("+Inf",)] == 4
    assert found["wait_count", ()] == 4
    assert found["wait_sum", ()] == 11.5


def test_labels_that_only_one_process_has_seen_are_kept() -> None:
    one, other = CollectorRegistry(), CollectorRegistry()
    Counter("requests", "Replies.", ["status"], registry=one).labels("200").inc(1)
    Counter("requests", "Replies.", ["status"], registry=other).labels("404").inc(2)
    found = values(render(merged([read(one), read(other)])))
    assert (found["requests_total", ("200",)], found["requests_total", ("404",)]) == (1, 2)


def test_what_has_waited_for_longest_is_not_added_up() -> None:
    registry = CollectorRegistry()
    waits = Gauge("firstview_oldest_kept_seconds", "Time.", registry=registry)
    parts = []
    for seconds in (30, 50, 20):
        waits.set(seconds)
        parts.append(read(registry))
    [found] = merged(parts)
    assert list(found.samples.values()) == [50]


def test_what_was_created_first_says_since_when_a_sum_counts() -> None:
    one, other = read(process(1, 0)), read(process(1, 0))
    key = ("requests_created", (("status", "200"),))
    one[0].samples[key], other[0].samples[key] = 20.0, 10.0
    assert merged([one, other])[0].samples[key] == 10.0


def test_what_the_kernel_says_of_a_process_can_be_left_to_another_registry_of_it() -> None:
    metrics = Metrics()
    metrics.vitals.look()
    families = read(metrics.registry)
    left = {family.name for family in without_vitals(families)}
    assert {family.name for family in families} - left == {
        "process_cpu_seconds",
        "process_resident_memory_bytes",
        "process_virtual_memory_bytes",
        "process_open_fds",
        "process_max_fds",
        "process_start_time_seconds",
    }


def test_what_travels_arrives_unchanged() -> None:
    said = read(process(3, 1, 0.5))
    assert from_wire(orjson.loads(orjson.dumps(to_wire(said)))) == said


def test_a_process_that_has_ended_leaves_what_it_counted_and_no_gauge() -> None:
    assert [family.name for family in counted(read(process(1, 1)))] == ["requests", "wait"]


def test_one_process_says_the_same_as_prometheus_own_text() -> None:
    from prometheus_client import generate_latest  # noqa: PLC0415 - what it is compared with

    registry = process(3, 1, 0.5)
    assert render(read(registry)) == generate_latest(registry)


def test_what_all_processes_see_alike_is_left_to_one() -> None:
    metrics = Metrics()
    names = {family.name for family in read(metrics.registry, metrics.of_the_machine)}
    for name in (
        "jobs",
        "oldest_due_job_seconds",
        "disk_used_bytes",
        "disk_limit_bytes",
        "build_info",
    ):
        assert f"firstview_{name}" not in names
    assert "firstview_connections" in names
