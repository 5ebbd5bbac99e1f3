"""Tables fit the terminal, and cut nothing where there is none."""

import pytest
from rich.cells import cell_len

from proxy.cli.tables import Column, Listing

COLUMNS = (
    Column(heading="id"),
    Column(heading="model", cut=True),
    Column(heading="n", right=True, optional=True),
    Column(heading="address", optional=True),
)
ROW = ("an-id", "a-model-with-a-long-name", "12", "https://cdn.example/an-id.mp4")


def test_a_pipe_gets_everything() -> None:
    heading, line = Listing(COLUMNS, width=None).lines([ROW])
    assert line == "an-id  a-model-with-a-long-name  12  https://cdn.example/an-id.mp4"
    assert heading == "id     model                      n  address"


@pytest.mark.parametrize("width", [21, 25, 30, 40, 60, 70])
def test_lines_are_never_wider_than_the_terminal(width: int) -> None:
    lines = list(Listing(COLUMNS, width=width).lines([ROW, ROW]))
    assert all(len(line) <= width for line in lines)
    assert all(line.startswith("an-id  a-model-wit") for line in lines[1:])


def test_what_is_optional_goes_from_the_right_before_ids_are_cut() -> None:
    heading, _ = Listing(COLUMNS, width=40).lines([ROW])
    assert heading.split() == ["id", "model", "n"]
    heading, line = Listing(COLUMNS, width=10).lines([ROW])
    assert heading.split() == ["id", "model"]
    assert line == "an-id  a-model-wit…"


def test_a_later_page_keeps_the_widths_and_has_no_headings() -> None:
    listing = Listing(COLUMNS[:2], width=None)
    assert list(listing.lines([("a", "m")])) == ["id  model", "a   m"]
    assert list(listing.lines([("b", "n")])) == ["b   n"]


def test_wide_characters_take_two_places() -> None:
    _, line = Listing(COLUMNS[1:3], width=15).lines([("猫" * 10, "1")])
    assert cell_len(line) == 15
    assert line.endswith("…  1")


def test_escape_sequences_do_not_reach_the_terminal() -> None:
    *_, line = Listing(COLUMNS[:1], width=None).lines([("\x1b[2Jx",)])
    assert line == " [2Jx"
