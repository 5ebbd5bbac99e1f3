"""The documentation says what the code does, no more and no less."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from proxy.catalog import said
from proxy.cli.main import app
from tools import reference

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


@pytest.mark.parametrize("name", sorted(reference.PAGES))
def test_the_reference_is_what_the_code_says(name: str) -> None:
    written = (ROOT / "docs" / "reference" / name).read_text()
    assert written == reference.PAGES[name](), "run `make reference` and commit the result"


def test_the_page_on_metrics_has_every_metric() -> None:
    written = reference.METRICS.read_text()
    assert written == reference.metrics_page(), "run `make reference` and commit the result"


_LINK = re.compile(r"\]\(([^)#]+?)(?:#[^)]*)?\)")


def test_every_page_can_be_reached_from_the_readme() -> None:
    found, ahead = set(), [ROOT / "README.md"]
    while ahead:
        page = ahead.pop()
        if page not in found and page.suffix == ".md" and page.exists():
            found.add(page)
            ahead += [(page.parent / to).resolve() for to in _LINK.findall(page.read_text())]
    assert set(PAGES) <= found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    for target in _LINK.findall(page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def headings(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    found = re.findall(r"^#+ (.+)$", without_code(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-") for text in found}


def without_code(page: Path) -> str:
    return re.sub(r"^ *```.*?^ *```$", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_to_a_chapter_lead_to_one(page: Path) -> None:
    for target, chapter in re.findall(r"\]\(\s*([^)#]*?\.md)?#([^)\s]+)\s*\)", without_code(page)):
        assert chapter in headings(page.parent / target if target else page), (target, chapter)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_settings_that_a_page_names_exist(page: Path) -> None:
    known = reference.settings_page()
    for name in set(re.findall(r"FIRSTVIEW_[A-Z_]*[A-Z]", page.read_text())):
        assert f"`{name}`" in known, f"{page.name} names {name}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_that_a_page_names_exist(page: Path) -> None:
    known = reference.commands_page()
    for name in set(re.findall(r"(?:`|\$ )firstview ([a-z]+)", page.read_text())):
        assert f"## `firstview {name}" in known, f"{page.name} names firstview {name}"


_BLOCK = re.compile(r"^ *```(?:sh|console)\n(.*?)^ *```", re.DOTALL | re.MULTILINE)
_CALL = re.compile(
    r"(?:^ *(?:\$ )?(?:[A-Z_]+=\S+ )*|-- |/bin/)firstview ([a-z][^#\n]*)", re.MULTILINE
)


def test_commands_in_examples_exist_with_all_their_options() -> None:
    sections = reference.commands_page().split("\n## `firstview ")[1:]
    known = {section.partition("`")[0]: section for section in sections}
    tried = 0
    for page in PAGES:
        for block in _BLOCK.findall(page.read_text()):
            for call in _CALL.findall(block.replace("\\\n", " ")):
                words = call.split()
                name = " ".join(words[:2]) if " ".join(words[:2]) in known else words[0]
                assert name in known, f"{page.name}: firstview {call}"
                for word in words:
                    if word.startswith("--"):
                        assert f"`{word.partition('=')[0]}`" in known[name], (page.name, call)
                tried += 1
    assert tried > 20


def test_the_list_of_decisions_is_complete() -> None:
    folder = ROOT / "docs" / "decisions"
    listed = re.findall(
        r"^(\d+)\. \[(.+)\]\((.+)\)$", (folder / "README.md").read_text(), re.MULTILINE
    )
    assert [name for _, _, name in listed] == sorted(path.name for path in folder.glob("0*.md"))
    for number, (place, title, name) in enumerate(listed, start=1):
        assert (int(place), int(name[:4])) == (number, number)
        assert (folder / name).read_text().startswith(f"# {number}. {title}")


def test_the_page_on_architecture_has_every_folder() -> None:
    written = (ROOT / "docs" / "architecture.md").read_text()
    listed = set(re.findall(r"^\| `proxy/(\w+)/` \|", written, re.MULTILINE))
    there = {path.parent.name for path in (ROOT / "proxy").glob("*/*")} - {"__pycache__"}
    assert listed == there


def test_every_column_of_an_import_is_told() -> None:
    written = (ROOT / "docs" / "catalog.md").read_text()
    for own, *others in said.NAMES:
        [row] = [line for line in written.splitlines() if re.match(rf"\|[^|]*`{own}`", line)]
        assert all(f"`{name}`" in row for name in others), own


def test_make_targets_that_a_page_names_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for page in PAGES:
        for name in re.findall(r"`make ([a-z-]+)", page.read_text()):
            assert name in targets, f"{page.name} names make {name}"


def test_every_file_of_the_package_says_what_belongs_in_it() -> None:
    for path in sorted((ROOT / "proxy").rglob("*.py")):
        if path.name != "__init__.py":
            assert path.read_text().startswith('"""'), path


def test_the_help_is_folded_where_the_terminal_ends_and_not_where_the_code_does() -> None:
    shown = CliRunner().invoke(app, ["serve", "--help"], env={"COLUMNS": "300"})
    assert shown.exit_code == 0
    assert "a second Ctrl-C ends the process at once" in shown.output


def test_the_help_answers_without_importing_the_server() -> None:
    script = (
        "import sys; from proxy.cli.main import app; "
        "sys.exit(any(name in sys.modules for name in ('aiohttp', 'sqlalchemy', 'aiobotocore')))"
    )
    assert subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=False).returncode == 0
