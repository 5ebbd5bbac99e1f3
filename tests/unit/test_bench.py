"""The benchmarks' arithmetic, tables, picture and command line; nothing here measures time."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import threading
import xml.etree.ElementTree as ET
from collections import Counter
from pathlib import Path

import pytest

from bench import archive, asks, chart, hits, nginx, pages, plan, report, scenarios
from bench.archive import Record
from bench.asks import Ask
from bench.first_byte import added
from bench.firstview import cache_clips
from bench.machine import Cores
from bench.plan import Options
from bench.results import (
    Finding,
    Mark,
    Outcome,
    Round,
    Sample,
    Spread,
    against_all,
    percentile,
    ratio,
    ratios,
)
from bench.server import Server
from bench.servers import Field
from bench.viewers import Viewer, drain, watch
from bench.wrk import fits, parse
from proxy.storage import keys
from proxy.storage.cached_files import CachedFiles
from proxy.storage.shared import Shared

ROOT = Path(__file__).resolve().parents[2]
AT_LEAST_ONE = Mark(1.0, at_least=True)


def sample(requests: int, seconds: float = 2.0, errors: int = 0, p50: float = 0.001) -> Sample:
    return Sample(
        requests=requests,
        seconds=seconds,
        received=requests * 1024 * 1024,
        p50=p50,
        p99=p50 * 2,
        errors=errors,
        cpu_seconds=1.0,
        load_cpu_seconds=0.5,
        resident=3 * 1024 * 1024,
        more={"stored_seconds": 0.25},
    )


def rounds(*counts: int) -> list[Round]:
    return [
        {"nginx": sample(100), "varnish": sample(50), "firstview": sample(count)}
        for count in counts
    ]


def outcome(*counts: int, mark: Mark | None = AT_LEAST_ONE) -> Outcome:
    found = rounds(*counts)
    return Outcome("whole", "hits, whole; here", found, against_all(found, mark), ["so"])


def record(*outcomes: Outcome) -> Record:
    return Record("2026-11-21", {"cores": "2 cores", "nginx": "1.22.1"}, list(outcomes))


def options(*arguments: str) -> Options:
    return plan.parse(scenarios.NAMES, scenarios.EXTRA, arguments)


def test_the_command_line_explains_itself() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "bench", "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    unwrapped = "".join(done.stdout.split())  # a line may end inside of a name
    assert all(name in unwrapped for name in (*scenarios.NAMES, *scenarios.EXTRA))


def test_scenarios_run_in_their_own_order_whatever_was_typed() -> None:
    assert options("cold", "whole").scenarios == ("whole", "cold")
    assert options().scenarios == scenarios.NAMES
    assert options("webhooks").scenarios == ("webhooks",)


def test_a_quick_run_is_smaller_but_for_what_was_typed() -> None:
    assert options().rounds == 5
    quick = options("--quick", "--crowd", "7")
    assert (quick.rounds, quick.crowd) == (1, 7)


@pytest.mark.parametrize(
    "arguments", [["lukewarm"], ["--rounds", "0"], ["--readme", "cold"], ["--readme", "--quick"]]
)
def test_what_cannot_be_run_is_refused(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        options(*arguments)
    assert "error" in capsys.readouterr().err


def test_servers_have_a_core_of_their_own_where_there_are_two() -> None:
    one, two, eight = (Cores.choose(range(count)) for count in (1, 2, 8))
    assert one.server == one.load == one.upstream == {0}
    assert [set(each) for each in (two.server, two.load, two.upstream)] == [{0}, {1}, {1}]
    assert (set(eight.server), set(eight.upstream)) == ({0}, {7})
    assert eight.load == {1, 2, 3, 4, 5, 6}
    assert eight.everyone.server == eight.everyone.load == set(range(8))


def test_rates_and_costs_come_from_counts_and_time() -> None:
    one = sample(500)
    assert (one.per_second, one.mib_per_second) == (250, 250)
    assert (one.cpu_share, one.load_share) == (0.5, 0.25)
    assert one.cpu_per_thousand == 2.0
    assert one.cpu_per_gigabyte == pytest.approx(1 / 0.524288)


def test_a_stretch_without_requests_divides_nothing_by_nothing() -> None:
    none = sample(0, seconds=0)
    assert (none.per_second, none.mib_per_second, none.cpu_per_thousand) == (0, 0, 0)
    assert ratio(5, 0) == 0


def test_a_percentile_is_one_of_the_values() -> None:
    assert percentile([3.0, 1.0, 2.0], 0.5) == 2.0
    assert percentile(range(1, 101), 0.99) == 100
    assert percentile([7.0], 0.99) == 7.0


def test_the_verdict_is_of_the_median_ratio_within_rounds() -> None:
    found = outcome(50, 95, 300, mark=Mark(0.95, at_least=True))
    [first, *_] = found.findings
    assert first.spread == Spread(0.5, 0.95, 3.0)
    assert (found.verdict(first), found.missed) == ("pass", False)
    stricter = outcome(50, 95, 300)
    assert (stricter.verdict(stricter.findings[0]), stricter.missed) == ("MISS", True)
    free = outcome(50, mark=None)
    assert (free.verdict(free.findings[0]), free.missed) == ("", False)


def test_every_peer_is_compared_with() -> None:
    names = [one.name for one in outcome(100).findings]
    assert "firstview / varnish, requests a second" in names
    assert "firstview / nginx, CPU a request" in names


def test_what_is_to_be_small_passes_below_its_mark() -> None:
    finding = Finding("idle", (110.0,), "MiB", Mark(110.0, at_least=False))
    found = Outcome("memory", "RAM", findings=[finding])
    assert found.verdict(finding) == "pass"
    larger = Finding("idle", (110.1,), "MiB", Mark(110.0, at_least=False))
    assert found.verdict(larger) == "MISS"


@pytest.mark.parametrize("ours", ["firstview", "firstview, 2 workers"])
def test_no_speed_counts_when_our_replies_were_wrong(ours: str) -> None:
    found = [{"nginx": sample(1, errors=5), ours: sample(9, errors=1)}]
    finding = ratios(found, lambda one: one.per_second, "speed", mark=AT_LEAST_ONE, ours=ours)
    assert Outcome("whole", "hits", found, [finding]).verdict(finding) == "MISS (1 wrong replies)"


def test_time_is_added_to_asking_directly() -> None:
    found = [{"direct": sample(1, p50=0.001), "firstview": sample(1, p50=0.0015)}]
    middle, slow = added(found, "firstview", Mark(1.0, at_least=False))
    assert middle.values == pytest.approx((0.5,))
    assert slow.values == pytest.approx((1.0,))
    assert (middle.unit, slow.mark) == ("ms", None)


def test_a_load_without_a_core_left_is_told() -> None:
    limited = Sample(
        requests=1, seconds=1, received=1, p50=0, p99=0, cpu_seconds=0.5, load_cpu_seconds=0.99
    )
    assert "no core left" in hits.who_was_the_limit([{"firstview": limited}])[0]
    assert not hits.who_was_the_limit([{"firstview": sample(1)}])


def test_ranges_are_aligned_and_lie_within_the_clip() -> None:
    found = asks.blocks("/a", 10_240, 1024, seed=3)
    assert found == asks.blocks("/a", 10_240, 1024, seed=3)
    assert {one.range for one in found} == {
        f"bytes={first}-{first + 1023}" for first in range(0, 10_240, 1024)
    }
    assert (found[0].status, asks.blocks("/a", 5, 0, 1)) == (206, [Ask("/a")])


def test_the_second_clip_is_asked_for_half_as_often_as_the_first() -> None:
    counts = Counter(one.path for one in asks.by_rank(["/1", "/2", "/3"], 11_000, seed=1))
    assert counts["/1"] == pytest.approx(6000, rel=0.05)
    assert counts["/2"] == pytest.approx(3000, rel=0.05)
    assert counts["/3"] == pytest.approx(2000, rel=0.05)


def test_wrk_is_given_one_line_a_request() -> None:
    assert asks.as_lines([Ask("/a"), Ask("/b", "bytes=0-1")]) == "/a\t\n/b\tbytes=0-1\n"
    assert asks.Ask("/b", "bytes=0-1").request() == (
        b"GET /b HTTP/1.1\r\nHost: bench\r\nRange: bytes=0-1\r\n\r\n"
    )


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


@pytest.mark.parametrize(("received", "right"), [(999, False), (1300, True), (15_000_000, False)])
def test_replies_of_another_length_than_the_range_are_noticed(received: int, right: bool) -> None:
    found = Sample(requests=10, seconds=1, received=received, p50=0, p99=0)
    assert fits(found, 100, connections=2) is right


def test_each_round_begins_with_another_server_and_the_first_may_be_to_warm_up() -> None:
    servers = {name: Server(name, 1, 1) for name in ("nginx", "varnish", "firstview")}
    field, turns = Field(servers, Server("upstream", 1, 1), Path()), []

    def turn(server: Server, number: int) -> Sample:
        turns.append((number, server.name))
        return sample(number)

    found = field.play(2, turn)
    assert [name for number, name in turns if number == 1] == ["varnish", "firstview", "nginx"]
    assert [each["firstview"].requests for each in found] == [1, 2]
    assert list(found[1]) == list(servers)
    turns.clear()
    field.play(1, turn, warm_up=False)
    assert {number for number, _ in turns} == {1}


def test_the_peer_has_as_many_workers_and_the_pace_of_a_clip_is_in_its_name() -> None:
    assert "worker_processes 2;" in nginx.cache_config(Path("/h"), 1, 2, 2)
    assert "limit_rate $speed" in nginx.upstream_config(Path("/h"), 1, Path("/r"))


def test_what_is_printed_has_every_server_and_the_verdict() -> None:
    text = "\n".join(report.lines(outcome(90, 110, 120)))
    assert "varnish" in text
    assert "median 1.10" in text
    assert "mark ≥ 1: pass" in text
    assert "note: so" in text


def test_numbers_keep_three_digits() -> None:
    assert [report.number(value) for value in (0, 0.1234, 1.234, 12.34, 123.4, 12345.6)] == [
        "0",
        "0.123",
        "1.23",
        "12.3",
        "123",
        "12,346",
    ]


def test_figures_come_back_from_their_file_as_they_were(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "figures.json"
    whole = record(outcome(50, 100, 200))
    archive.write(path, whole)
    assert archive.read([path]) == whole
    assert '"per_second": 25.0' in path.read_text()


def test_a_later_file_replaces_single_scenarios(tmp_path: Path) -> None:
    other = Outcome("cold", "cold", rounds(1), failed=1)
    archive.write(tmp_path / "1", record(outcome(50), other))
    archive.write(tmp_path / "2", record(outcome(70)))
    merged = archive.read([tmp_path / "1", tmp_path / "2"])
    assert [one.name for one in merged.outcomes] == ["whole", "cold"]
    assert merged.outcomes[0].samples("firstview")[0].requests == 70


def test_the_table_of_goals_says_which_are_met() -> None:
    missed = outcome(50, 60, 70)
    missed.name = "other"
    text = pages.summary(record(outcome(110, 120, 130), missed))
    assert "1.10 / **1.20** / 1.30 | ≥ 1 | met |" in text
    assert "0.500 / **0.600** / 0.700 | ≥ 1 | **missed** |" in text
    assert "nginx 1.22.1" in text


def test_details_have_a_row_for_each_server() -> None:
    text = pages.details(record(outcome(110)))
    assert [line.split("|")[1].strip() for line in text.splitlines() if line.startswith("|")] == [
        "",
        "---",
        "nginx",
        "varnish",
        "firstview",
    ]


def test_only_what_is_between_the_markers_is_replaced() -> None:
    page = "a\n<!-- bench: begin -->\nold\n<!-- bench: end -->\nb\n"
    once = pages.replaced(page, "new")
    assert once == "a\n<!-- bench: begin -->\nnew\n<!-- bench: end -->\nb\n"
    assert pages.replaced(once, "new") == once
    with pytest.raises(ValueError, match="begin"):
        pages.replaced("a page without markers", "new")


def test_the_pages_have_their_markers(tmp_path: Path) -> None:
    for page in ("README.md", "docs/performance.md"):
        (tmp_path / page).parent.mkdir(exist_ok=True)
        (tmp_path / page).write_text((ROOT / page).read_text())
    (tmp_path / "docs" / "images").mkdir()
    pages.put(tmp_path, record(outcome(110)))
    assert "docs/images/bench.svg" in (tmp_path / "README.md").read_text()
    assert "](images/bench.svg)" in (tmp_path / "docs" / "performance.md").read_text()
    assert (tmp_path / "docs" / "images" / "bench.svg").exists()


def test_the_picture_has_a_bar_for_each_server_and_a_whisker_for_each_spread() -> None:
    alone = Outcome("memory", "RAM", findings=[Finding("idle", (1.0,))])
    drawing = ET.fromstring(chart.draw(record(outcome(50, 100, 200), alone)))
    space = "{http://www.w3.org/2000/svg}"
    bars = [one for one in drawing.iter(f"{space}rect") if one.get("x") == str(chart.LEFT)]
    whiskers = [one for one in drawing.iter(f"{space}line") if one.get("class") == "whisker"]
    assert len(bars) == 3
    assert len(whiskers) == 1  # the others were the same in every round
    widths = [float(one.get("width", 0)) for one in bars]
    assert widths[0] == pytest.approx(widths[1], abs=0.2)
    assert widths[2] == pytest.approx(widths[1] / 2, abs=0.2)


def test_scenarios_of_one_title_are_told_apart_in_the_picture() -> None:
    one, other = outcome(50), outcome(60)
    other.name = "shared"
    drawing = chart.draw(record(one, other))
    assert ">hits, whole (whole)<" in drawing
    assert ">hits, whole (shared)<" in drawing
    assert ">Requests a second, nginx = 1<" in drawing


def test_an_empty_run_has_a_picture_too() -> None:
    assert ET.fromstring(chart.draw(record())).tag.endswith("svg")


def test_clips_that_growth_puts_into_the_cache_are_what_the_cache_opens(tmp_path: Path) -> None:
    cache_clips(tmp_path, ["a", "b"], 3000)
    with contextlib.closing(Shared(keys.run_dir(tmp_path))) as shared:
        found = CachedFiles(keys.cache_dir(tmp_path), shared).open("b")
    assert found is not None
    os.close(found[0])
    assert (found[1].request_id, found[1].length) == ("b", 3000)


def test_a_viewer_knows_a_whole_reply_from_one_cut_short() -> None:
    replies = [b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nclip", b"HTTP/1.1 200 OK\r\n"]
    replies[1] += b"Content-Length: 9\r\n\r\nclip"
    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=_answer, args=(server, replies))
        thread.start()
        port = server.getsockname()[1]
        [whole] = watch(port, [Ask("/a")], connections=1, seconds=5)
        [cut] = watch(port, [Ask("/b")], connections=1, seconds=5)
        thread.join()
    assert (whole.whole, whole.received, whole.status) == (True, 4, 200)
    assert (cut.whole, cut.received, cut.status) == (False, 4, 200)


def test_a_range_has_to_be_answered_as_one_and_its_first_byte_is_the_bodys() -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n"
    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=_answer, args=(server, [head + b"clip"]))
        thread.start()
        viewer = Viewer(server.getsockname()[1])
        seen = viewer.see(Ask("/a", "bytes=0-3"))
        viewer.socket.close()
        thread.join()
    assert not seen.whole
    assert seen.first_byte == seen.last_byte > 0


def test_who_is_cut_off_by_the_clock_is_told_apart() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        viewer = Viewer(server.getsockname()[1])
        done, cut = drain([viewer], iter([Ask("/a")]), seconds=0.01)
        viewer.socket.close()
    assert (done, len(cut)) == ([], 1)


def _answer(server: socket.socket, replies: list[bytes]) -> None:
    for reply in replies:
        connection, _ = server.accept()
        with connection:
            connection.recv(4096)
            connection.sendall(reply)
