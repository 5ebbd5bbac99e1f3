"""The snippets in docs/links.md make the same links as firstview, byte for byte."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from proxy.secret_lists import NamedKey
from proxy.security.links import Links
from tests.fixtures.programs import require_program

PAGE = Path(__file__).resolve().parents[2] / "docs" / "links.md"
SECRET = "a-secret-of-the-application"
LIFE, NOW = 3600, 1_795_300_000
CASES = [
    (path, life)
    for path in ("/videos/clip.mp4", "/videos/a_B-9.mp4?download=a%20b", "/videos/x.mp4?a=1&b=2")
    for life in range(1, LIFE + 1, 97)  # so many MACs have every character that has to be encoded
]


def snippet(language: str) -> str:
    found = re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert len(found) == 1
    code: str = found[0]
    return code


@pytest.fixture
def wanted() -> list[str]:
    links = Links([NamedKey("app", SECRET.encode())], LIFE)
    return [links.sign(path, NOW, life=life).path for path, life in CASES]


def test_python_makes_the_same_links(wanted: list[str]) -> None:
    names: dict[str, Any] = {}
    exec(snippet("python"), names)
    signed: Callable[..., str] = names["signed_path"]
    assert [signed(path, SECRET, life, LIFE, NOW) for path, life in CASES] == wanted


@pytest.mark.needs("node")
def test_typescript_makes_the_same_links(wanted: list[str], tmp_path: Path) -> None:
    # Older nodes know no types: they are taken off, which is all that compiling would do here.
    code = re.sub(r"\b(\w+|\)): (?:string|number)\b", r"\1", snippet("typescript"))
    code = code.replace("): string", ")")
    program = tmp_path / "sign.mjs"
    program.write_text(
        f"{code}\nconst cases = {json.dumps(CASES)};\nconsole.log(JSON.stringify(cases.map("
        f"([path, life]) => signedPath(path, {json.dumps(SECRET)}, life, {LIFE}, {NOW}.9))));\n"
    )
    done = subprocess.run(
        [require_program("node"), program], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == wanted
