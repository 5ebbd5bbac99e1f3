"""The report: what people read, what programs read, and the exit code."""

from __future__ import annotations

import pytest

from proxy.cli.doctor.finding import Finding, Mark, Notes, failure, fine, unchecked, warning
from proxy.cli.doctor.report import as_dict, exit_code, lines


def findings(*marks: Mark) -> list[Finding]:
    return [
        Finding(area="bucket", check="write", mark=mark, seen="it was so", advice="do this")
        for mark in marks
    ]


@pytest.mark.parametrize(
    ("marks", "code"),
    [
        ((), 0),
        ((Mark.OK, Mark.WARNING, Mark.UNCHECKED), 0),
        ((Mark.OK, Mark.FAILS), 1),
    ],
)
def test_only_what_fails_makes_the_exit_code(marks: tuple[Mark, ...], code: int) -> None:
    assert exit_code(findings(*marks)) == code
    assert as_dict(findings(*marks), 1.0)["healthy"] is (code == 0)


def test_each_finding_is_a_line_and_what_to_do_another() -> None:
    notes = Notes("disk")
    notes.add("room", fine("enough"))
    notes.add("kind", warning("tmpfs", "mount a disk"))
    told = [text for text, _ in lines(notes.findings, 0.25, None)]
    assert told == [
        "disk",
        "  ok           room  enough",
        "  warning      kind  tmpfs",
        "                   → mount a disk",
        "",
        "1 ok, 1 warning (0.2 s)",
    ]


def test_long_texts_are_wrapped_and_never_obey() -> None:
    notes = Notes("bucket")
    notes.add("write", failure("word " * 40 + "\x1b[2J\nend", "mend " * 40))
    notes.add("the rest", unchecked("nothing"))
    told = [text for text, _ in lines(notes.findings, 1.0, 60)]
    assert max(map(len, told)) <= 60
    assert "\x1b" not in "".join(told)
    assert sum(text.count("word") for text in told) == 40
    assert sum(text.count("mend") for text in told) == 40


def test_the_marks_of_a_report_are_counted() -> None:
    counts = as_dict(findings(Mark.OK, Mark.FAILS, Mark.FAILS), 2.0)["counts"]
    assert counts == {"ok": 1, "warning": 0, "fails": 2, "not checked": 0}
