"""What `make` installs is what tests and targets drive."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TESTS = ROOT / "tests"


def installed_by(target: str) -> set[str]:
    """Programs, and packages that have several, which a target sees to before it begins."""
    done = subprocess.run(
        ["make", "--dry-run", target],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    commands = re.findall(r"^tools/system-packages (.*)$", done.stdout, re.MULTILINE)
    return {name for pair in " ".join(commands).split() for name in pair.split(":")}


def driven(*, soak: bool) -> set[str]:
    """Programs that tests are marked with; without `soak` those of every run only."""
    found = set()
    for path in TESTS.rglob("test_*.py"):
        for marks in re.findall(
            r"(?:^(?:@|pytestmark = )pytest.*\n)+", path.read_text(), re.MULTILINE
        ):
            if soak or "mark.soak" not in marks:
                for names in re.findall(r"mark\.needs\(([^)]*)\)", marks):
                    found |= set(re.findall(r'"([\w-]+)"', names))
    return found


@pytest.mark.parametrize(("target", "soak"), [("test", False), ("soak", True)])
def test_every_program_that_a_test_drives_is_installed_for_it(target: str, *, soak: bool) -> None:
    wanted = driven(soak=soak)
    assert wanted - installed_by(target) == set()
    assert ("buildah" in wanted) == soak
