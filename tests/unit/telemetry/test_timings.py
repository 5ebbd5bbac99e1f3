"""Histograms of plain numbers say what Prometheus' own would."""

from __future__ import annotations

import math

import pytest
from prometheus_client import CollectorRegistry, Histogram

from proxy.telemetry.counts import CountingRegistry
from proxy.telemetry.samples import read
from proxy.telemetry.timings import Buckets, Timings

BOUNDS = (0.1, 1.0, 10.0)
SECONDS = (0.0, 0.1, 0.100001, 1.0, 5.0, 10.0, 10.5, 1e9)


def counted(timings: Timings, **labels: str) -> dict[str, float]:
    [family] = timings.collect()
    return {
        sample.name.removeprefix("took_") + sample.labels.get("le", ""): sample.value
        for sample in family.samples
        if labels.items() <= sample.labels.items()
    }


def test_the_samples_are_those_of_prometheus_own_histogram() -> None:
    theirs, ours = CollectorRegistry(), CountingRegistry()
    histogram = Histogram("took", "Time.", ["tier"], buckets=BOUNDS, registry=theirs)
    timings = ours.timings("took", "Time.", BOUNDS, {"tier": ("disk",)})
    for seconds in SECONDS:
        histogram.labels("disk").observe(seconds)
        timings.labels("disk").observe(seconds)
    assert read(ours) == read(theirs)


def test_what_is_counted_elsewhere_within_finer_bounds_is_part_of_a_series() -> None:
    timings, finer = Timings("took", "Time.", ("tier",), BOUNDS), Buckets((0.01, 0.1, 0.5, 1.0))
    timings.labels("disk").observe(0.05)
    timings.add(finer, "disk")
    for seconds in (0.001, 0.05, 0.3, 0.9, 4.0):
        finer.observe(seconds)
    found = counted(timings, tier="disk")
    assert [found[f"bucket{bound}"] for bound in ("0.1", "1.0", "10.0", "+Inf")] == [3, 5, 5, 6]
    assert found["count"] == 6
    assert math.isclose(found["sum"], 0.05 + 0.001 + 0.05 + 0.3 + 0.9 + 4.0)


def test_bounds_that_would_split_what_is_counted_elsewhere_are_refused() -> None:
    timings = Timings("took", "Time.", (), BOUNDS)
    with pytest.raises(ValueError, match="took"):
        timings.add(Buckets((0.01, 0.5, 1.0)))


def test_a_series_is_there_before_anything_was_timed() -> None:
    registry = CountingRegistry()
    registry.timings("took", "Time.", BOUNDS, {"tier": ("disk", "bucket")})
    registry.timings("lag", "Time.", BOUNDS)
    assert registry.get_sample_value("took_count", {"tier": "bucket"}) == 0
    assert registry.get_sample_value("lag_bucket", {"le": "+Inf"}) == 0
