"""`firstview demo` shows clips come in by all three ways, to anyone, and leaves nothing behind."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect, sync_playwright

from proxy.cli.demo.clips import CLIPS
from tests.fixtures.programs import require_program

COMMAND = Path(sys.executable).with_name("firstview")
ANY_PORTS = ["--port=0", "--admin-port=0", "--page-port=0", "--fal-port=0"]
FAST = ["--speed=16MiB/s", "--latency=5ms"]
PATIENCE = 30.0
LINK = re.compile(r"http://127\.0\.0\.1:\d+/\S*")


@dataclass
class Place:
    """An empty directory to run in, an empty home, and a folder for temporary files."""

    root: Path
    extra: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("home", "tmp", "work"):
            (self.root / name).mkdir()

    @property
    def work(self) -> Path:
        return self.root / "work"

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [COMMAND, "demo", *arguments],
            cwd=self.work,
            env={
                "PATH": os.environ["PATH"],
                "HOME": str(self.root / "home"),
                "TMPDIR": str(self.root / "tmp"),
                **self.extra,
            },
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def run(self, *arguments: str) -> tuple[int, str]:
        """Run the command to its end; exit code and all that it printed."""
        with self.start(*arguments) as demo:
            output, _ = demo.communicate(timeout=PATIENCE)
            return demo.returncode, output

    def left_behind(self) -> list[str]:
        return [
            str(path.relative_to(self.root))
            for name in ("home", "tmp", "work")
            for path in (self.root / name).rglob("*")
        ]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@contextlib.contextmanager
def running(place: Place, *arguments: str) -> Iterator[tuple[subprocess.Popen[str], list[str]]]:
    """A demo that has said where everything is; yields it and its lines so far."""
    demo = place.start(*ANY_PORTS, *arguments)
    assert demo.stdout is not None
    lines: list[str] = []
    try:
        for line in demo.stdout:
            lines.append(line.rstrip())
            if line.startswith("  end"):
                break
        yield demo, lines
    finally:
        if demo.poll() is None:
            demo.kill()
        demo.wait()
        demo.stdout.close()


def link(lines: list[str], label: str) -> str:
    [line] = [line for line in lines if line.startswith(f"  {label}")]
    found = LINK.search(line)
    assert found is not None, line
    return found[0]


def end(demo: subprocess.Popen[str], how: signal.Signals) -> tuple[int, str]:
    demo.send_signal(how)
    output, _ = demo.communicate(timeout=PATIENCE)
    return demo.returncode, output


def is_gone(group: int) -> bool:
    """Whether no process of a session is left."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return True
    return False


def get(url: str) -> tuple[str, bytes]:
    with urllib.request.urlopen(url, timeout=PATIENCE) as reply:
        return reply.headers["Cache-Status"], reply.read()


def test_once_shows_a_miss_become_a_hit_and_leaves_nothing_behind(place: Place) -> None:
    code, output = place.run("--once", *FAST, *ANY_PORTS)
    assert code == 0, output
    assert re.search(r"outcome +miss +hit", output)
    assert re.search(r"requests upstream +1 +0", output)
    assert "first view of mandelbrot · miss" in output
    assert "stored mandelbrot in the owned bucket" in output
    assert "second view of mandelbrot · hit · from the owned bucket" in output
    assert output.count("identical to the source's") == 3
    assert "\x1b" not in output, "colours without a terminal"
    assert place.left_behind() == []


def test_once_shows_clips_that_nobody_views_become_owned_by_webhook_and_by_sweep(
    place: Place,
) -> None:
    code, output = place.run("--once", *FAST, *ANY_PORTS)
    assert code == 0, output
    for line in (
        "webhook for clock, take 1 · signed by fal (fake), written down",
        "stored clock, take 1 in the owned bucket",
        "first view of clock, take 1 · hit · from the owned bucket",
        "finished weave, take 1, and no webhook says so",
        "sweep · 1 long pending",
        "stored weave, take 1 in the owned bucket",
        "first view of weave, take 1 · hit · from the owned bucket",
    ):
        before, found, output = output.partition(line)
        assert found, f"no {line!r} after {before}"


def test_nothing_of_the_users_own_settings_reaches_the_demo(place: Place) -> None:
    (place.work / ".env").write_text("FIRSTVIEW_LISTEN=nonsense\nFIRSTVIEW_MAX_FILLS=0\n")
    place.extra = {
        "FIRSTVIEW_BUCKET_URL": "s3://production",
        "FIRSTVIEW_DATABASE_URL": "postgresql://production/catalog",
        "FIRSTVIEW_DATA_DIR": str(place.work / "data"),
        "AWS_ENDPOINT_URL_S3": "http://127.0.0.1:1",
        "HTTP_PROXY": "http://127.0.0.1:1",
        "http_proxy": "http://127.0.0.1:1",
    }
    code, output = place.run("--once", *FAST, *ANY_PORTS)
    assert code == 0, output
    assert place.left_behind() == ["work/.env"]


def test_a_bucket_that_was_kept_answers_the_first_view_of_the_next_run(place: Place) -> None:
    keep = place.work / "kept"
    for expected, owned in ((r"outcome +miss +hit", 3), (r"outcome +hit +hit", 5)):
        code, output = place.run("--once", f"--keep={keep}", *FAST, *ANY_PORTS)
        assert code == 0, output
        assert re.search(expected, output)
        assert len(list((keep / "bucket" / "videos").glob("*.mp4"))) == owned, "a new take each"
    assert not list((keep / "spool").iterdir())


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_a_viewer_sees_a_miss_then_a_hit_and_a_signal_ends_it_all(
    place: Place, how: signal.Signals
) -> None:
    with running(place, *FAST) as (demo, lines):
        clip = link(lines, "clips")
        first, data = get(clip)
        assert "fwd=uri-miss" in first
        told = next(line for line in demo.stdout or () if "stored mandelbrot" in line)
        assert "verified, sha256" in told
        second, again = get(clip)
        assert second == "firstview; hit; detail=bucket"
        assert data == again
        assert re.search(r"firstview_stored_total [1-9]", _text(link(lines, "metrics")))
        code, rest = end(demo, how)
    assert code == 0, rest
    assert "second view of mandelbrot · hit" in rest
    assert "Traceback" not in rest
    assert is_gone(demo.pid)
    assert place.left_behind() == []
    with pytest.raises(urllib.error.URLError):
        get(clip)


def test_the_end_does_not_wait_for_a_slow_view(place: Place) -> None:
    with (
        running(place, "--speed=20KiB/s") as (demo, lines),
        urllib.request.urlopen(link(lines, "clips"), timeout=PATIENCE) as reply,
    ):
        assert reply.read(1000)
        code, rest = end(demo, signal.SIGINT)
    assert code == 0, rest
    assert "Traceback" not in rest
    assert place.left_behind() == []


def test_a_default_port_that_is_taken_is_replaced_and_said_so(place: Place) -> None:
    with socket.socket() as taken:
        with contextlib.suppress(OSError):  # somebody else's will do as well
            taken.bind(("127.0.0.1", 8080))
            taken.listen()
        code, output = place.run("--once", *FAST, *ANY_PORTS[1:])
    assert code == 0, output
    assert "port 8080 is taken" in output


def test_a_port_that_was_asked_for_and_is_taken_is_an_error(place: Place) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        code, output = place.run("--once", *ANY_PORTS[1:], f"--port={port}")
    assert code == 2
    assert output == f"--port: port {port} is taken; leave it out to find one\n"
    assert place.left_behind() == []


@pytest.mark.parametrize("wrong", ["--speed=fast", "--latency=soon", "--keep=/dev/null/x"])
def test_what_makes_no_sense_is_told_in_one_line(place: Place, wrong: str) -> None:
    code, output = place.run("--once", *ANY_PORTS, wrong)
    assert code == 2
    assert output.count("\n") == 1
    assert wrong.partition("=")[0] in output


def test_a_webhook_that_nobody_signed_is_refused(place: Place) -> None:
    with running(place, *FAST) as (demo, lines):
        body = b'{"request_id": "forged", "status": "OK", "payload": null, "payload_error": "x"}'
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(link(lines, "webhooks"), data=body, timeout=PATIENCE)
        with refused.value as reply:
            assert reply.status == 401
        code, _ = end(demo, signal.SIGTERM)
    assert code == 0


def test_the_api_and_the_command_line_can_be_tried_on_what_the_demo_shows(place: Place) -> None:
    with running(place, *FAST) as (demo, lines):
        url = f"{link(lines, 'API')}generations?prefix={CLIPS[0].request_id}"
        asking = urllib.request.Request(url, headers={"Authorization": "Bearer demo"})
        with urllib.request.urlopen(asking, timeout=PATIENCE) as reply:
            [found] = json.load(reply)["items"]
        [line] = [line for line in lines if line.startswith("  search")]
        name, _, value = line.split()[1].partition("=")
        shown = subprocess.run(
            [COMMAND, "catalog", "search"],
            env={"PATH": os.environ["PATH"], name: value},
            cwd=place.work,
            capture_output=True,
            text=True,
            check=True,
            timeout=PATIENCE,
        )
        code, _ = end(demo, signal.SIGTERM)
    assert found["model"] == CLIPS[0].model
    assert found["status"] == "available"
    assert CLIPS[0].request_id in shown.stdout
    assert code == 0


@pytest.fixture
def page() -> Iterator[Page]:
    """A page in a fresh Chromium. What it complains of fails the test."""
    arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    complaints: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=require_program("chromium"), args=arguments
        )
        page = browser.new_page()
        page.set_default_timeout(PATIENCE * 1000)
        expect.set_options(timeout=PATIENCE * 1000)
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        yield page
        browser.close()
    assert complaints == []


@pytest.mark.needs("chromium")
def test_the_page_plays_a_cold_clip_and_says_hit_on_the_second_view(
    place: Place, page: Page
) -> None:
    with running(place, "--speed=4MiB/s") as (demo, lines):
        page.goto(link(lines, "open"))
        row, player = page.locator("#mandelbrot"), page.locator("#player")
        views = player.locator(".views li")
        expect(player.locator(".state")).to_have_text("Cold: only fal.media has it.")
        expect(row.locator(".status")).to_have_text("available")
        row.get_by_role("button").click()
        expect(views.first).to_contain_text("First view: miss")
        expect(player.locator(".state")).to_contain_text("verified and stored")
        expect(row.locator(".status")).to_have_text("stored")
        expect(row.locator(".way")).to_have_text("view")
        wait_until(lambda: page.evaluate("document.querySelector('video').currentTime") > 0.3)
        player.get_by_role("button", name="View again").click()
        expect(views.first).to_contain_text("Second view: hit")
        expect(views.first).to_contain_text("Cache-Status: firstview; hit; detail=bucket")
        expect(page.locator("#aurora .status")).to_have_text("available")
        expect(page.locator("#by-view")).to_have_text("1")
        page.goto("about:blank")
        code, _ = end(demo, signal.SIGTERM)
    assert code == 0


@pytest.mark.needs("chromium")
def test_a_phone_shows_a_clip_come_in_by_webhook_before_anybody_looks_and_then_play(
    place: Place, page: Page
) -> None:
    page.set_viewport_size({"width": 390, "height": 700})
    with running(place, *FAST) as (demo, lines):
        page.goto(link(lines, "open"))
        row = page.locator("#clock-1")
        expect(row.locator(".status")).to_have_text("pending")
        expect(row.get_by_role("button")).to_be_disabled()
        expect(row.locator(".status")).to_have_text("stored")
        expect(row.locator(".way")).to_have_text("webhook")
        expect(row.locator(".bytes")).to_have_text("0.8 MB")
        row.scroll_into_view_if_needed()
        expect(page.locator("video")).not_to_be_in_viewport()
        row.get_by_role("button").click()
        expect(page.locator("video")).to_be_in_viewport()
        expect(page.locator("#player .views li").first).to_contain_text("First view: hit")
        page.goto("about:blank")
        code, _ = end(demo, signal.SIGTERM)
    assert code == 0


def wait_until(holds: Callable[[], bool]) -> None:
    """Wait until something holds, with a limit."""
    limit = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < limit
        time.sleep(0.02)


def _text(url: str) -> str:
    with urllib.request.urlopen(url, timeout=PATIENCE) as reply:
        return str(reply.read().decode())
