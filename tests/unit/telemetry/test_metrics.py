"""Metrics by the rules: few values, all from the beginning, the names of those who make them."""

from __future__ import annotations

import subprocess

import pytest

from proxy.catalog.sweeping import Sweeping
from proxy.delivery.following import Step
from proxy.errors import FirstviewError
from proxy.jobs.resolve import Resolved
from proxy.jobs.verdict import Outcome
from proxy.records import JobKind, JobState
from proxy.telemetry import values
from proxy.telemetry.counts import Described
from proxy.telemetry.metrics import Metrics
from proxy.telemetry.samples import merged, read, render
from proxy.telemetry.tally import QUICK, RANGE, Tally
from proxy.upstream.breaker import HostResting, State
from tests.fixtures.labels import undeclared
from tests.fixtures.programs import require_program

MOST_SERIES = 1500
OPEN = {("firstview_upstream_resting", "host")}
"""Labels whose values are not known beforehand; all others are."""


def described(name: str) -> Described:
    return Metrics().registry.described[name]


def every_error() -> set[str]:
    found, kinds = set(), [FirstviewError]
    while kinds:
        kind = kinds.pop()
        found.add(kind.slug)
        kinds += kind.__subclasses__()
    return found


def test_every_label_has_values_that_are_known_beforehand() -> None:
    unknown = {
        (one.name, label)
        for one in Metrics().registry.described.values()
        for label, known in one.labels.items()
        if not known
    }
    assert unknown == OPEN | {
        ("firstview_build_info", "version"),
        ("firstview_build_info", "python"),
    }


def test_no_value_is_named_twice_and_all_are_short() -> None:
    for one in Metrics().registry.described.values():
        for label, known in one.labels.items():
            assert len(set(known)) == len(known), (one.name, label)
            assert all(0 < len(value) <= 32 for value in known), (one.name, label)


def test_every_metric_is_there_before_anything_has_happened() -> None:
    metrics = Metrics()
    metrics.vitals.look()
    there = {key[0] for family in read(metrics.registry) for key in family.samples}
    for one in metrics.registry.described.values():
        if (one.name, "host") not in OPEN:
            name = f"{one.name}_bucket" if one.kind.startswith("histogram") else one.name
            assert name in there, one.name


def test_there_are_few_series() -> None:
    assert sum(len(family.samples) for family in read(Metrics().registry)) < MOST_SERIES


def test_values_are_those_of_whoever_counts() -> None:
    assert set(described("firstview_jobs_run_total").labels["outcome"]) == set(Outcome)
    assert set(described("firstview_jobs_run_total").labels["kind"]) == set(JobKind)
    assert set(described("firstview_jobs").labels["state"]) == set(JobState)
    assert set(described("firstview_resolves_total").labels["outcome"]) == set(Resolved)
    assert set(described("firstview_upstream_breakers").labels["state"]) == set(State)
    ends = {step.name.lower() for step in Step if step is not Step.WAIT}
    assert set(described("firstview_followed_fills_total").labels["end"]) == ends
    stages = {name.removeprefix("file_") for name in vars(Sweeping) if name.startswith("file_")}
    assert set(described("firstview_sweep_filed_total").labels["reason"]) == stages
    assert HostResting.slug == values.RESTING


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("firstview_replies_aborted_total", "reason"),
        ("firstview_fills_total", "outcome"),
        ("firstview_store_failures_total", "error"),
        ("firstview_seeks_total", "outcome"),
    ],
)
def test_errors_go_by_their_names(name: str, label: str) -> None:
    own = {"ok", "cancelled", "no-room", "ignored", "no_place", "stopped"}
    assert set(described(name).labels[label]) - own <= every_error()


def hit(tally: Tally, status: int, size: int, spent: float) -> None:
    """Step it as `proxy.web.hits` does."""
    tally.seconds += spent
    tally.size += size
    if status == RANGE:
        tally.ranges += 1
    else:
        tally.others[status] += 1
    if spent > QUICK:
        tally.slow(spent)


def test_a_hit_that_is_answered_in_one_go_is_counted_in_every_metric_of_replies() -> None:
    metrics = Metrics()
    for size in (1000, 24):
        hit(metrics.hits("disk"), 206, size, 0.02)

    def look(name: str, labels: dict[str, str]) -> float:
        value = metrics.registry.get_sample_value(name, labels)
        assert value is not None
        return value

    assert look("firstview_requests_total", {"status": "206", "tier": "disk"}) == 2
    assert look("firstview_sent_bytes_total", {"tier": "disk"}) == 1024
    for name in ("firstview_first_byte_seconds", "firstview_reply_seconds"):
        assert look(f"{name}_count", {"tier": "disk"}) == 2
        assert look(f"{name}_count", {"tier": "bucket"}) == 0
        assert look(f"{name}_bucket", {"tier": "disk", "le": "0.01"}) == 0
        assert look(f"{name}_sum", {"tier": "disk"}) >= 0.04
    metrics.first_byte.labels("disk").observe(0.5)  # one that took its time
    assert look("firstview_first_byte_seconds_count", {"tier": "disk"}) == 3


def test_quick_hits_and_slow_ones_are_told_apart_however_often_somebody_looks() -> None:
    metrics = Metrics()
    tally = metrics.hits("disk")

    def look(name: str, **labels: str) -> float | None:
        return metrics.registry.get_sample_value(name, {"tier": "disk", **labels})

    for time_round in (1, 2, 3):
        for status in (206, 206, 206, 200, 304):
            hit(tally, status, 100, 0.00001)
        hit(tally, 206, 100, 0.3)
        for _ in range(2):
            replies = [look("firstview_requests_total", status=str(s)) for s in (206, 200, 304)]
            assert replies == [4 * time_round, time_round, time_round]
            assert look("firstview_sent_bytes_total") == 600 * time_round
            for name in ("firstview_first_byte_seconds", "firstview_reply_seconds"):
                assert look(f"{name}_bucket", le="0.0001") == 5 * time_round
                assert look(f"{name}_bucket", le="0.1") == 5 * time_round
                assert look(f"{name}_bucket", le="0.5") == 6 * time_round
                assert look(f"{name}_count") == 6 * time_round


def test_a_process_that_is_younger_does_not_make_the_instance_younger() -> None:
    one, other = Metrics(), Metrics()
    for metrics in (one, other):
        metrics.vitals.look()
    parts = [read(one.registry), read(other.registry)]
    [began] = [family for family in parts[0] if family.name == "process_start_time_seconds"]
    [key] = began.samples
    began.samples[key] += 1000.0
    together = {family.name: family for family in merged(parts)}
    assert together[began.name].samples[key] == pytest.approx(began.samples[key] - 1000.0)
    [memory] = together["process_resident_memory_bytes"].samples.values()
    each = [family for part in parts for family in part if "resident" in family.name]
    assert memory == sum(value for family in each for value in family.samples.values())


@pytest.mark.needs("promtool")
def test_names_and_kinds_are_what_promtool_wants() -> None:
    metrics = Metrics()
    metrics.vitals.look()
    metrics.resting.labels("fal.media").set(0)
    checked = subprocess.run(
        [require_program("promtool"), "check", "metrics"],
        input=render(read(metrics.registry)),
        capture_output=True,
        timeout=30,
        check=False,
    )
    assert (checked.returncode, checked.stderr.decode()) == (0, "")


def test_a_value_that_nobody_has_declared_is_found() -> None:
    metrics = Metrics()
    metrics.vitals.look()
    metrics.resting.labels("any.host").set(1)
    assert not undeclared(metrics)
    metrics.shed.labels("patience").inc()
    metrics.first_byte.labels("moon").observe(1.0)
    assert undeclared(metrics) == {
        ("firstview_shed_total", "limit", "patience"),
        ("firstview_first_byte_seconds", "tier", "moon"),
    }
