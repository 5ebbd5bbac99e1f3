"""The rules, the dashboard and the example configuration, as far as no server is needed."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from proxy.telemetry.metrics import Metrics
from tests.fixtures.programs import require_program

ROOT = Path(__file__).resolve().parents[2]
PROMETHEUS = ROOT / "deploy" / "prometheus"
RULES, TESTS = PROMETHEUS / "alerts.yml", PROMETHEUS / "alerts.test.yml"
DASHBOARD = ROOT / "deploy" / "grafana" / "firstview.json"
SUFFIXES = ("", "_bucket", "_count", "_sum")


def alerts() -> list[str]:
    return re.findall(r"^ +- alert: (\w+)$", RULES.read_text(), re.MULTILINE)


def queries() -> list[str]:
    """All that the dashboard asks for."""
    panels = json.loads(DASHBOARD.read_text())["panels"]
    return [target["expr"] for panel in panels for target in panel.get("targets", [])]


def promtool(*arguments: str | Path) -> str:
    done = subprocess.run(
        [require_program("promtool"), *arguments],
        cwd=PROMETHEUS,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.needs("promtool")
def test_the_rules_and_the_example_configuration_are_right() -> None:
    said = promtool("check", "config", "prometheus.yml")
    assert "alerts.yml" in said


@pytest.mark.needs("promtool")
def test_each_alert_is_raised_by_what_it_is_for_and_none_when_all_is_well() -> None:
    promtool("test", "rules", TESTS.name)


def test_each_alert_has_a_test_and_a_line_that_says_what_to_do() -> None:
    found = alerts()
    assert len(found) > 20
    tested = re.findall(r"alertname: (\w+)", TESTS.read_text())
    page = (ROOT / "docs" / "operations.md").read_text()
    told = re.findall(r"^\| `(Firstview\w+)` \|", page, re.MULTILINE)
    assert sorted(found) == sorted(set(tested)) == sorted(told)


def test_what_rules_and_dashboard_ask_for_exists() -> None:
    known = {
        f"{name}{suffix}" for name in Metrics().registry.described for suffix in SUFFIXES
    } | set(re.findall(r"record: ([\w:]+)", RULES.read_text()))
    asked = " ".join([*queries(), RULES.read_text()])
    names = set(re.findall(r"\b(?:firstview|process)_[a-z_]+\b", asked))
    assert names
    assert names <= known


def test_every_metric_that_counts_something_is_on_the_dashboard() -> None:
    asked = " ".join(queries())
    missing = {
        name
        for name in Metrics().registry.described
        if not re.search(rf"\b{name}(?:_bucket|_count|_sum)?\b", asked)
    }
    assert missing <= {"process_virtual_memory_bytes"}


def test_panels_do_not_lie_on_each_other_and_have_numbers_of_their_own() -> None:
    panels: list[dict[str, Any]] = json.loads(DASHBOARD.read_text())["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken = [
        (x, y)
        for panel in panels
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(set(taken)) == len(taken)
    assert max(x for x, _ in taken) < 24


def test_every_panel_goes_by_the_job_and_the_instance_that_were_chosen() -> None:
    for query in queries():
        for matchers in re.findall(r"[a-z_]+\{([^}]*)\}", query):
            assert 'job="$job", instance=~"$instance"' in matchers, query


def test_every_panel_says_what_it_shows() -> None:
    panels: list[dict[str, Any]] = json.loads(DASHBOARD.read_text())["panels"]
    asking = [panel for panel in panels if panel["type"] != "row"]
    assert [panel["title"] for panel in asking if not panel.get("description")] == []
    # A number that is always 1 would be all that is seen of a version.
    [version] = [panel for panel in asking if "build_info" in panel["targets"][0]["expr"]]
    assert version["options"]["textMode"] == "name"
