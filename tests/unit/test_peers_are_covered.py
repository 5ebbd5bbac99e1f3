"""Every failure collected in docs/peers.md has a test whose docstring names it, where it says."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PEERS = range(1, 43)

_NAMED = re.compile(r"[Pp]eers ((?:\d+(?: \([^)]*\))?(?:,\s+and\s+|,\s+|\s+and\s+)?)+)")
_ROW = re.compile(r"\| (\d+) \| (.+?) \| (.+?) \|")
_FILE = re.compile(r"`(tests/[^`]+)`")


def numbers_in(text: str) -> set[int]:
    """Numbers that a docstring names after the word, sources in brackets between them."""
    found = set()
    for match in _NAMED.finditer(text):
        found |= {int(number) for number in re.findall(r"\d+", re.sub(r"\([^)]*\)", "", match[1]))}
    return found


@cache
def named() -> dict[int, set[str]]:
    """Which test files name which number."""
    found: dict[int, set[str]] = defaultdict(set)
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Module):
                for number in numbers_in(ast.get_docstring(node) or ""):
                    found[number].add(str(path.relative_to(ROOT)))
    return found


@cache
def listed() -> dict[int, str]:
    """What docs/peers.md says of each number."""
    text = (ROOT / "docs" / "peers.md").read_text()
    return {int(match[1]): match[3] for match in _ROW.finditer(text)}


def test_the_list_is_complete() -> None:
    assert sorted(listed()) == list(PEERS)


@pytest.mark.parametrize("number", PEERS)
def test_a_failure_elsewhere_is_tested_here_where_the_list_says(number: int) -> None:
    where = set(_FILE.findall(listed()[number]))
    assert where, f"{number} names no test"
    missing = where - named()[number]
    assert not missing, f"{number} is not named in a docstring of {missing}"


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("Peers 5 (harbor#23601): a 200 to a resume.", {5}),
        ("Peers 21 (distribution#3428), 23 (proxpi#68), 24 (bazel-remote#318).", {21, 23, 24}),
        ("Names peers 1, 3, 35 and 38.", {1, 3, 35, 38}),
        ("Peers 7 (quay#6885, ocis#4968), 37 (athens#1957): a kill.", {7, 37}),
        ("Peers 26 (nginx#1065), 33 (varnish#1758): 100 bytes.", {26, 33}),
        ("Other peers have 3 tiers.", set()),
    ],
)
def test_docstrings_are_read_as_they_are_meant(text: str, numbers: set[int]) -> None:
    assert numbers_in(text) == numbers
