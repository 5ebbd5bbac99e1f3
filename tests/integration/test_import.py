"""`firstview import` fills the catalog from files as people write them."""

import json
from pathlib import Path

import pytest

from proxy.catalog.engine import open_catalog
from proxy.catalog.generations import Generations
from proxy.records import Generation, Status
from tests.integration.test_command_line import firstview

pytestmark = pytest.mark.timeout(180)  # each command is a process, which has to begin first

URL = "https://v3b.fal.media/files/b/{}/clip.mp4"


async def row(folder: Path, request_id: str) -> Generation | None:
    catalog = await open_catalog(f"sqlite:///{folder}/data/catalog.sqlite")
    try:
        return await Generations(catalog, clip_url=str).get(request_id)
    finally:
        await catalog.close()


def write_csv(file: Path, count: int) -> None:
    lines = [f"r{n},{URL.format(n)},fal-ai/veo3,a cat,{n + 1}" for n in range(count)]
    file.write_text("\n".join(["request_id,fal_url,model,prompt,file_size", *lines]))


async def test_a_csv_file_is_registered(tmp_path: Path) -> None:
    write_csv(tmp_path / "clips.csv", 2500)
    done = firstview(tmp_path, "import", "clips.csv", FIRSTVIEW_PUBLIC_URL="https://cdn.example/")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("2500 created, 0 updated, 0 repointed, 0 unchanged, 0 refused (")
    assert done.stderr == "", "no progress bar where nobody watches"
    found = await row(tmp_path, "r2499")
    assert found is not None
    assert (found.status, found.content_length) == (Status.AVAILABLE, 2500)
    assert found.cdn_url == "https://cdn.example/videos/r2499.mp4"
    assert found.prompt is None
    assert found.prompt_hash is not None


async def test_json_lines_are_registered_and_reported_as_json(tmp_path: Path) -> None:
    lines = [
        {"request_id": "a", "fal_url": URL.format("a"), "created_at": "2026-11-01T00:00:00Z"},
        {"id": "b"},
        {"id": "a", "video_url": URL.format("other"), "status": "COMPLETED"},
        {"id": "b"},
    ]
    (tmp_path / "clips.jsonl").write_text("\n".join(map(json.dumps, lines)))
    done = firstview(tmp_path, "import", "clips.jsonl", "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report.pop("seconds") >= 0
    assert report == {
        "dry_run": False,
        "usable": 4,
        "created": 2,
        "updated": 0,
        "repointed": 1,
        "unchanged": 1,
        "refused": 0,
        "first_refused": [],
        "ignored_columns": ["status"],
    }


async def test_importing_again_changes_nothing(tmp_path: Path) -> None:
    write_csv(tmp_path / "clips.csv", 10)
    firstview(tmp_path, "import", "clips.csv")
    before = await row(tmp_path, "r1")
    done = firstview(tmp_path, "import", "clips.csv")
    assert "10 unchanged" in done.stdout
    assert await row(tmp_path, "r1") == before


async def test_refused_rows_are_shown_and_written_and_the_others_registered(
    tmp_path: Path,
) -> None:
    bad = [f"../{n},{URL.format(n)}" for n in range(15)]
    lines = [f"good,{URL.format('g')}", *bad, "foreign,https://evil.example/clip.mp4"]
    (tmp_path / "clips.csv").write_text("\n".join(["request_id,fal_url", *lines]))
    done = firstview(tmp_path, "import", "clips.csv", "--refused", "refused.csv")
    assert done.returncode == 1
    assert "1 created" in done.stdout
    assert "16 refused" in done.stdout
    shown = done.stderr.splitlines()
    assert shown[0].startswith("row 3: request_id must be 1 to 128 letters")
    assert shown[-1] == "… and 6 more; --refused FILE writes them all"
    written = (tmp_path / "refused.csv").read_text().splitlines()
    assert written[0] == "row,request_id,reason"
    assert len(written) == 17
    assert written[-1].startswith("18,foreign,fal_url: The clip's source is not on the list")
    assert await row(tmp_path, "good") is not None


def test_a_file_without_a_usable_row_is_exit_code_2(tmp_path: Path) -> None:
    (tmp_path / "clips.csv").write_text("request_id\n../\n")
    assert firstview(tmp_path, "import", "clips.csv").returncode == 2
    (tmp_path / "empty.csv").write_text("request_id\n")
    assert firstview(tmp_path, "import", "empty.csv").returncode == 2


def test_a_file_that_cannot_be_read_says_why(tmp_path: Path) -> None:
    missing = firstview(tmp_path, "import", "missing.csv")
    assert missing.returncode == 2
    assert "cannot read missing.csv" in missing.stderr
    (tmp_path / "clips.json").write_text('[{"request_id":"a"}]')
    array = firstview(tmp_path, "import", "clips.json")
    assert array.returncode == 2
    assert "one object a line" in array.stderr
    assert "Traceback" not in missing.stderr + array.stderr


def test_a_dry_run_touches_no_catalog(tmp_path: Path) -> None:
    write_csv(tmp_path / "clips.csv", 10)
    done = firstview(tmp_path, "import", "clips.csv", "--dry-run")
    assert done.returncode == 0
    assert "10 rows could be registered, 0 would be refused" in done.stdout
    assert not (tmp_path / "data").exists()


def test_a_catalog_that_is_away_is_exit_code_3_and_keeps_its_password(tmp_path: Path) -> None:
    write_csv(tmp_path / "clips.csv", 10)
    done = firstview(
        tmp_path,
        "import",
        "clips.csv",
        FIRSTVIEW_DATABASE_URL="postgresql://u:s3cret@127.0.0.1:1/db",
    )
    assert done.returncode == 3
    assert "0 rows are registered; run the same again for the rest" in done.stderr
    assert "s3cret" not in done.stdout + done.stderr
