"""The benchmarks' arithmetic and command line; nothing here measures time."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from bench import plan, report
from bench.results import Mark, Outcome, Round, Sample, Spread, ratio
from bench.viewers import watch
from bench.wrk import parse

ROOT = Path(__file__).resolve().parents[2]


def sample(requests: int, seconds: float = 2.0) -> Sample:
    return Sample(
        requests=requests,
        seconds=seconds,
        received=requests * 1_000_000,
        p50=0.001,
        p99=0.002,
        cpu_seconds=1.0,
    )


def test_the_command_line_explains_itself() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "bench", "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    unwrapped = "".join(done.stdout.split())  # a line may end inside of a name
    assert all(name in unwrapped for name in plan.SCENARIOS)


def test_scenarios_run_in_their_own_order_whatever_was_typed() -> None:
    assert plan.parse(["cold", "whole"]).scenarios == ("whole", "cold")
    assert plan.parse([]).scenarios == plan.SCENARIOS


def test_an_unknown_scenario_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        plan.parse(["lukewarm"])
    assert "lukewarm" in capsys.readouterr().err


def test_rates_come_from_counts_and_time() -> None:
    one = sample(500)
    assert one.per_second == 250
    assert one.megabytes_per_second == 250
    assert one.cpu_share == 0.5
    assert one.cpu_micros == 2000


def test_a_stretch_without_requests_divides_nothing_by_nothing() -> None:
    none = sample(0, seconds=0)
    assert (none.per_second, none.megabytes_per_second, none.cpu_micros) == (0, 0, 0)
    assert ratio(5, 0) == 0


def test_the_verdict_is_of_the_median_ratio() -> None:
    rounds = [Round(sample(100), sample(count)) for count in (50, 95, 300)]
    outcome = Outcome("whole", "a clip", Mark(0.9, at_least=True), rounds)
    assert outcome.ratios == Spread(0.5, 0.95, 3.0)
    assert outcome.verdict == "pass"
    outcome.mark = Mark(0.96, at_least=True)
    assert outcome.verdict == "MISS"
    outcome.mark = None
    assert outcome.verdict == ""


def test_a_value_may_be_judged_instead() -> None:
    outcome = Outcome("memory", "fills", Mark(300, at_least=False), values={"peak": 300.0})
    assert outcome.verdict == "not measured"
    outcome.judged = "peak"
    assert outcome.verdict == "pass"
    outcome.values["peak"] = 300.1
    assert outcome.verdict == "MISS"


def test_no_speed_counts_when_replies_were_wrong() -> None:
    wrong = Sample(requests=9, seconds=1, received=9, p50=0, p99=0, errors=1)
    outcome = Outcome("whole", "a clip", Mark(0.9, at_least=True), [Round(sample(1), wrong)])
    assert outcome.verdict == "MISS (1 wrong replies)"


def test_wrk_is_read_by_the_line_that_our_script_prints() -> None:
    found = parse(
        "Running 1s test\n"
        'RESULT {"requests": 10, "micros": 2000000, "bytes": 30, "p50": 1500, "p99": 9000, '
        '"errors": 1}\n',
        cpu_seconds=0.5,
    )
    assert (found.requests, found.seconds, found.received, found.errors) == (10, 2.0, 30, 1)
    assert (found.p50, found.p99, found.cpu_seconds) == (0.0015, 0.009, 0.5)
    with pytest.raises(RuntimeError):
        parse("unable to connect\n")


def test_what_is_printed_and_written_has_every_round(tmp_path: Path) -> None:
    outcome = Outcome(
        "cold", "clips", Mark(1.0, at_least=True), [Round(sample(100), sample(110))], notes=["so"]
    )
    text = "\n".join(report.lines(outcome))
    assert "median 1.10" in text
    assert "≥ 1: pass" in text
    path = tmp_path / "deep" / "figures.json"
    report.write(path, "2 cores", [outcome])
    assert '"requests_per_second": 55.0' in path.read_text()


def test_a_viewer_knows_a_whole_clip_from_one_cut_short() -> None:
    replies = [b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nclip", b"HTTP/1.1 200 OK\r\n"]
    replies[1] += b"Content-Length: 9\r\n\r\nclip"
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            for reply in replies:
                connection, _ = server.accept()
                with connection:
                    connection.recv(4096)
                    connection.sendall(reply)

        thread = threading.Thread(target=answer)
        thread.start()
        port = server.getsockname()[1]
        [whole] = watch(port, ["/a"], connections=1, seconds=5)
        [cut] = watch(port, ["/b"], connections=1, seconds=5)
        thread.join()
    assert (whole.whole, whole.received, whole.status) == (True, 4, 200)
    assert (cut.whole, cut.received, cut.status) == (False, 4, 200)
