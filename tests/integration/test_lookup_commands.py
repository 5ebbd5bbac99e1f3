"""`firstview catalog search|show` and `firstview jobs list|retry`, as a shell sees them."""

import csv
import io
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from proxy.catalog.engine import open_catalog
from proxy.catalog.generations import Generations
from proxy.catalog.job_rows import NewJob
from proxy.catalog.jobs import Jobs
from proxy.records import ClipFacts, JobKind, Registration
from tests.integration.test_command_line import firstview

pytestmark = pytest.mark.timeout(180)  # each command is a process, which has to begin first

MADE = datetime(2026, 11, 1, 12, tzinfo=UTC)
URL = "https://v3b.fal.media/files/b/{}.mp4"


@pytest.fixture
async def folder(tmp_path: Path) -> Path:
    """A stored clip, an available one, a pending one, a failed one; a dead job and a due one."""
    (tmp_path / "data").mkdir()
    catalog = await open_catalog(f"sqlite:///{tmp_path}/data/catalog.sqlite", migrate=True)
    rows = Generations(catalog, clip_url=lambda name: f"https://cdn.example/videos/{name}.mp4")
    jobs = Jobs(catalog)
    await rows.register(
        [
            Registration(
                request_id=name,
                fal_url=URL.format(name) if name != "pending" else None,
                model="fal-ai/veo3" if name == "stored" else "fal-ai/kling",
                prompt="A cat" if name == "stored" else None,
                duration=5.0,
                width=1280,
                height=720,
                created_at=MADE - timedelta(days=day),
            )
            for day, name in enumerate(("stored", "waiting", "pending"))
        ]
    )
    facts = ClipFacts(request_id="stored", length=8_123_456, etag="tag", last_modified=MADE)
    await rows.mark_stored("stored", URL.format("stored"), facts, "ab" * 32, MADE)
    await rows.mark_failed("broken", "the model\nrefused")
    await jobs.file([NewJob(request_id="waiting", kind=JobKind.MIRROR, created_at=MADE)])
    [job] = await jobs.claim(JobKind.MIRROR, "me", 1, timedelta(minutes=1))
    await jobs.bury(job, "not-a-clip: it is HTML")
    asked = NewJob(request_id="pending", kind=JobKind.RESOLVE, asked=True, created_at=MADE)
    await jobs.file([asked])
    await catalog.close()
    return tmp_path


# --- catalog search -----------------------------------------------------------------------------


def test_clips_are_listed_newest_first_in_one_line_each(folder: Path) -> None:
    done = firstview(folder, "catalog", "search", "--until", "2026-11-02")
    assert done.returncode == 0, done.stderr
    heading, *lines = done.stdout.splitlines()
    assert heading.split()[:3] == ["request", "id", "status"]
    assert [line.split()[0] for line in lines] == ["stored", "waiting", "pending"]
    assert lines[0].split() == [
        *("stored", "stored", "fal-ai/veo3", "5.0", "8.1MB", "2026-11-01", "12:00"),
        "https://cdn.example/videos/stored.mp4",
    ]


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        (("--status", "available"), {"waiting"}),
        (("--model", "fal-ai/veo3"), {"stored"}),
        (("--prefix", "wait"), {"waiting"}),
        (("--prompt", "A cat"), {"stored"}),
        (("--since", "2026-10-31", "--until", "2026-11-01T11:00Z"), {"waiting"}),
        (("--since", "1h"), {"broken"}),
        (("--limit", "1", "--until", "2026-11-02"), {"stored"}),
        (("--all",), {"stored", "waiting", "pending", "broken"}),
        (("--model", "nobody's"), set()),
    ],
)
def test_what_is_remembered_of_a_clip_finds_it(
    folder: Path, arguments: tuple[str, ...], found: set[str]
) -> None:
    done = firstview(folder, "catalog", "search", *arguments, "--json")
    assert done.returncode == 0, done.stderr
    assert {row["request_id"] for row in json.loads(done.stdout)} == found


def test_a_listing_that_was_cut_says_so(folder: Path) -> None:
    assert "--all" in firstview(folder, "catalog", "search", "--limit", "2").stdout
    assert "--all" not in firstview(folder, "catalog", "search").stdout
    assert firstview(folder, "catalog", "search", "--model", "x").stdout == "nothing found\n"


def test_csv_holds_everything_and_can_be_imported_again(folder: Path) -> None:
    done = firstview(folder, "catalog", "search", "--csv", "--until", "2026-11-02")
    rows = {row["request_id"]: row for row in csv.DictReader(io.StringIO(done.stdout))}
    assert set(rows) == {"stored", "waiting", "pending"}
    assert rows["stored"]["sha256"] == "ab" * 32
    assert rows["stored"]["created_at"] == "2026-11-01T12:00:00+00:00"
    (folder / "again.csv").write_text(done.stdout)
    imported = firstview(folder, "import", "again.csv", FIRSTVIEW_DATA_DIR="elsewhere")
    assert imported.returncode == 0, imported.stderr
    assert imported.stdout.startswith("3 created, ")


@pytest.mark.parametrize(
    "arguments",
    [
        ("--json", "--csv"),
        ("--since", "once"),
        ("--prefix", "../x"),
        ("--status", "great"),
        ("--limit", "0"),
    ],
)
def test_a_question_that_makes_no_sense_is_exit_code_2(
    folder: Path, arguments: tuple[str, ...]
) -> None:
    done = firstview(folder, "catalog", "search", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert "Traceback" not in done.stderr


# --- catalog show -------------------------------------------------------------------------------


def test_one_clip_is_shown_with_both_addresses_and_its_jobs(folder: Path) -> None:
    done = firstview(folder, "catalog", "show", "stored")
    assert done.returncode == 0
    facts = dict(line.split("  ", 1) for line in done.stdout.splitlines())
    facts = {label: value.strip() for label, value in facts.items()}
    assert facts["address"] == "https://cdn.example/videos/stored.mp4"
    assert facts["source"] == URL.format("stored")
    assert facts["size"] == "8.1MB (8,123,456 bytes)"
    assert facts["dimensions"] == "1280 x 720"
    waiting = firstview(folder, "catalog", "show", "waiting").stdout
    assert "mirror job        dead " in waiting
    assert "not-a-clip: it is HTML" in waiting
    assert "the model refused" in firstview(folder, "catalog", "show", "broken").stdout


def test_one_clip_as_json_has_every_column_and_the_jobs(folder: Path) -> None:
    body = json.loads(firstview(folder, "catalog", "show", "waiting", "--json").stdout)
    assert (body["status"], body["fal_url"]) == ("available", URL.format("waiting"))
    [job] = body["jobs"]
    assert (job["kind"], job["state"], job["attempts"]) == ("mirror", "dead", 1)


@pytest.mark.parametrize("name", ["nobody", "../etc/passwd", "\x1b[2J"])
def test_an_unknown_clip_is_one_sentence_and_exit_code_1(folder: Path, name: str) -> None:
    done = firstview(folder, "catalog", "show", name)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("firstview: the catalog knows no generation ")
    assert "\x1b" not in done.stderr


# --- jobs ---------------------------------------------------------------------------------------


def test_jobs_are_listed_with_what_they_wait_for(folder: Path) -> None:
    done = firstview(folder, "jobs", "list")
    assert done.returncode == 0, done.stderr
    _, due, dead = done.stdout.splitlines()
    assert due.split() == ["pending", "resolve", "due,", "asked", "0", "now"]
    assert dead.split()[:4] == ["waiting", "mirror", "dead", "1"]
    assert dead.endswith("ago  not-a-clip: it is HTML")


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        ((), ["pending", "waiting"]),
        (("--all",), ["pending", "waiting"]),
        (("--limit", "1"), ["pending"]),
        (("--state", "dead"), ["waiting"]),
        (("--kind", "resolve"), ["pending"]),
        (("--kind", "resolve", "--state", "running"), []),
    ],
)
def test_jobs_are_found_by_state_and_kind(
    folder: Path, arguments: tuple[str, ...], found: list[str]
) -> None:
    jobs = json.loads(firstview(folder, "jobs", "list", "--json", *arguments).stdout)
    assert [job["request_id"] for job in jobs] == found


def test_no_jobs_are_said_in_words(tmp_path: Path) -> None:
    assert firstview(tmp_path, "jobs", "list").stdout == "no jobs\n"
    assert firstview(tmp_path, "jobs", "list", "--json").stdout == "[]\n"


def test_dead_jobs_begin_anew(folder: Path) -> None:
    none = firstview(folder, "jobs", "retry", "--all-dead", "--kind", "resolve", "--json")
    assert json.loads(none.stdout) == {"retried": 0, "without_job": []}
    done = firstview(folder, "jobs", "retry", "--all-dead")
    assert (done.returncode, done.stdout) == (0, "1 job begins anew\n")
    [job] = json.loads(firstview(folder, "jobs", "list", "--kind", "mirror", "--json").stdout)
    assert (job["state"], job["attempts"]) == ("due", 0)


def test_named_jobs_begin_anew_and_ids_without_are_named(folder: Path) -> None:
    done = firstview(folder, "jobs", "retry", "waiting", "nobody")
    assert (done.returncode, done.stdout) == (1, "1 job begins anew\n")
    assert done.stderr == "nobody has no such job\n"
    other = firstview(folder, "jobs", "retry", "waiting", "--kind", "resolve", "--json")
    assert json.loads(other.stdout) == {"retried": 0, "without_job": ["waiting"]}


@pytest.mark.parametrize("arguments", [(), ("waiting", "--all-dead"), ("waiting", "--kind", "x")])
def test_a_retry_of_nothing_or_of_both_is_exit_code_2(
    folder: Path, arguments: tuple[str, ...]
) -> None:
    assert firstview(folder, "jobs", "retry", *arguments).returncode == 2


# --- a catalog that cannot be used --------------------------------------------------------------

ALL = [("catalog", "search"), ("catalog", "show", "x"), ("jobs", "list"), ("jobs", "retry", "x")]


@pytest.mark.parametrize("command", ALL, ids=" ".join)
def test_an_old_schema_is_one_sentence_that_says_what_to_run(
    tmp_path: Path, postgres_url: str, command: tuple[str, ...]
) -> None:
    done = firstview(tmp_path, *command, FIRSTVIEW_DATABASE_URL=postgres_url)
    assert (done.returncode, done.stdout) == (3, "")
    assert "run `firstview catalog migrate`" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("command", ALL, ids=" ".join)
def test_a_catalog_that_is_away_is_exit_code_3(tmp_path: Path, command: tuple[str, ...]) -> None:
    done = firstview(tmp_path, *command, FIRSTVIEW_DATABASE_URL="postgresql://u:pw@127.0.0.1:9/x")
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr == (
        "firstview: The catalog cannot be reached: [Errno 111] Connection refused:"
        " start the server, or correct the host and port in FIRSTVIEW_DATABASE_URL\n"
    )
