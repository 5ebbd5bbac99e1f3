"""firstview lives with what its systemd unit takes away from it."""

from __future__ import annotations

import ctypes
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fixtures import sandboxed

UNIT = Path(__file__).resolve().parents[2] / "deploy" / "systemd" / "firstview.service"
FIRSTVIEW = str(Path(sys.executable).with_name("firstview"))


def run(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    try:
        ctypes.CDLL(sandboxed.LIBRARY)
    except OSError:
        pytest.skip(f"needs {sandboxed.LIBRARY}, which is not installed")
    return subprocess.run(
        [sys.executable, sandboxed.__file__, str(UNIT), *command],
        cwd=folder,
        env={"PATH": "/usr/bin:/bin", "FIRSTVIEW_DATA_DIR": str(folder), "HOME": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.needs("systemd-analyze")
def test_the_rules_are_in_force_here(tmp_path: Path) -> None:
    for forbidden in (
        "import mmap; mmap.mmap(-1, 4096, prot=7)",
        "import os; os.chown('.', 0, 0)",
        "import os; os.setuid(0)",
    ):
        done = run(tmp_path, sys.executable, "-c", forbidden)
        assert "PermissionError" in done.stderr, forbidden


@pytest.mark.needs("systemd-analyze")
def test_the_catalog_works_under_the_units_rules(tmp_path: Path) -> None:
    done = run(tmp_path, FIRSTVIEW, "catalog", "search", "--json")
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.soak
@pytest.mark.needs("systemd-analyze")
def test_clips_come_in_by_all_three_ways_under_the_units_rules(tmp_path: Path) -> None:
    done = run(tmp_path, FIRSTVIEW, "demo", "--once")
    assert done.returncode == 0, done.stderr
