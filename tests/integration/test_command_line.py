"""The `firstview` command as a shell sees it: output, errors, exit codes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import proxy

pytestmark = pytest.mark.timeout(180)  # each command is a process, which has to begin first

COMMAND = [sys.executable, "-c", "from proxy.cli.main import main; main()"]


def firstview(folder: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(Path(proxy.__file__).parents[1]),
        **variables,
    }
    return subprocess.run(
        [*COMMAND, *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def test_the_version_is_shown(tmp_path: Path) -> None:
    done = firstview(tmp_path, "--version")
    assert (done.returncode, done.stdout) == (0, f"firstview {proxy.__version__}\n")


def test_help_names_every_command_without_loading_what_they_need(tmp_path: Path) -> None:
    done = firstview(tmp_path, "--help")
    assert done.returncode == 0
    named = {line.split()[1] for line in done.stdout.splitlines() if line.startswith("│ ")}
    commands = {"serve", "worker", "mirror", "sweep", "import", "demo", "config", "catalog", "jobs"}
    commands.add("doctor")
    assert commands <= named
    heavy = ("sqlalchemy", "aiohttp", "pydantic", "aiobotocore", "uvloop")
    probe = f"import sys, proxy.cli.main; print([m for m in {heavy} if m in sys.modules])"
    loaded = subprocess.run(
        [sys.executable, "-c", probe], capture_output=True, text=True, timeout=100, check=True
    )
    assert loaded.stdout == "[]\n"


def test_mistakes_in_settings_are_listed_one_a_line(tmp_path: Path) -> None:
    done = firstview(
        tmp_path, "config", FIRSTVIEW_LISTEN="x", FIRSTVIEW_MAX_FILLS="0", FIRSTVIEW_PART_SIZE="?"
    )
    assert done.returncode == 2
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert [line.partition(":")[0] for line in lines] == [
        "FIRSTVIEW_LISTEN",
        "FIRSTVIEW_MAX_FILLS",
        "FIRSTVIEW_PART_SIZE",
    ]


@pytest.mark.parametrize("arguments", [("nonsense",), ("import",), ("config", "--nonsense")])
def test_a_wrong_command_line_is_exit_code_2(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    done = firstview(tmp_path, *arguments)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_settings_come_as_a_table_or_as_json(tmp_path: Path) -> None:
    table = firstview(tmp_path, "config", FIRSTVIEW_CACHE_MAX_BYTES="1GiB")
    assert table.returncode == 0
    [line] = [line for line in table.stdout.splitlines() if "CACHE_MAX_BYTES" in line]
    assert "1.0GiB" in line
    assert "environment" in line
    body = json.loads(firstview(tmp_path, "config", "--json").stdout)
    assert {"name", "value", "default", "unit", "sentence", "source"} == set(body[0])


def test_only_what_somebody_has_set_is_shown_if_that_is_asked_for(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("FIRSTVIEW_MAX_FILLS=256\nFIRSTVIEW_ADMIN_TOKEN=s3cret\n")
    done = firstview(tmp_path, "config", "--changed", "--json", FIRSTVIEW_LISTEN=":1")
    assert done.returncode == 0, done.stderr
    shown = {line["name"]: (line["value"], line["source"]) for line in json.loads(done.stdout)}
    assert shown == {
        "FIRSTVIEW_LISTEN": (":1", "environment"),
        "FIRSTVIEW_ADMIN_TOKEN": ("********", ".env"),
        "FIRSTVIEW_MAX_FILLS": (256, ".env"),  # at its default, but somebody wants it so
    }


def test_a_name_that_no_setting_has_is_pointed_out_beside_the_table(tmp_path: Path) -> None:
    done = firstview(tmp_path, "config", FIRSTVIEW_LISTN=":1")
    assert done.returncode == 2
    assert "FIRSTVIEW_LISTEN" in done.stdout
    assert done.stderr.startswith("FIRSTVIEW_LISTN: there is no such setting")
    assert "is it FIRSTVIEW_LISTEN?" in done.stderr
