"""What a database's answers mean to whoever set it up.

Belongs here: judgements. Must not know: how anything is asked.
"""

from __future__ import annotations

from typing import Final

from proxy.catalog import schema
from proxy.catalog.drivers import Limits
from proxy.cli.doctor.finding import Verdict, failure, fine, warning

_SLOW: Final = {"SQLite": 0.01, "PostgreSQL": 0.02}
"""Seconds of a trip from which on viewers notice."""
_OLDEST: Final = 130000
"""PostgreSQL 13; older ones get no repairs."""
_SETTING: Final = "FIRSTVIEW_DATABASE_URL"

_BY_STATE: Final = {
    "28P01": f"the password is refused: correct it in {_SETTING}, or in PGPASSWORD or ~/.pgpass",
    "28000": f"this user is refused: correct {_SETTING}, or the server's pg_hba.conf",
    "3D000": f"create the database (`createdb`), or correct its name in {_SETTING}",
    "42501": "grant this user the right to write to the tables, or make it their owner",
    "25006": f"{_SETTING} leads to a replica that is read only: name the primary",
    "53300": "raise max_connections of the server, or lower FIRSTVIEW_WORKERS",
    "57P03": "the server is starting or stopping: try again",
    "55P03": "somebody holds a lock on the tables: see pg_locks",
    "53100": "the server's disk is full: make room",
}
"""PostgreSQL's SQLSTATEs (its documentation, appendix A), and what to do."""

_LET_WRITE: Final = "let the user that runs firstview write to the file and its folder"
_MAKE_ROOM: Final = "make room on the disk of the file, and see whether the disk is well"
_RESTORE: Final = f"restore a backup, or let {_SETTING} name another file"
_BY_WORDS: Final = {
    "readonly": _LET_WRITE,
    "unable to open": _LET_WRITE,
    "disk is full": _MAKE_ROOM,
    "disk I/O": _MAKE_ROOM,
    "not a database": _RESTORE,
    "malformed": _RESTORE,
}
"""What SQLite says (sqlite.org/rescode.html), and what to do."""


def kind_of(url: str) -> str:
    """What kind of database an address names."""
    return "SQLite" if url.startswith("sqlite:") else "PostgreSQL"


def judge_error(error: BaseException | None) -> Verdict:
    """Judge why a database could not be used; nothing of its address is repeated."""
    cause = getattr(error, "orig", None) or error
    driver = getattr(cause, "__cause__", None)
    state = getattr(cause, "sqlstate", None) or getattr(driver, "sqlstate", None)
    text = str(driver if state and driver is not None else cause or "no answer")
    seen = text.strip().partition("\n")[0].removeprefix("<class ")
    if state in _BY_STATE:
        return failure(f"{seen} ({state})", _BY_STATE[state])
    if isinstance(cause, TimeoutError):
        mend = f"check the host and port in {_SETTING}, and that a firewall lets this machine out"
        return failure("no answer in time", mend)
    if isinstance(cause, OSError) and cause.filename:
        return failure(f"{cause.filename}: {cause.strerror}", f"{_LET_WRITE}, or set {_SETTING}")
    if isinstance(cause, OSError):
        mend = f"start the server, or correct the host and port in {_SETTING}"
        return failure(seen or type(cause).__name__, mend)
    mends = (mend for words, mend in _BY_WORDS.items() if words in seen)
    return failure(seen, next(mends, f"check {_SETTING} and the server's log"))


def judge_schema(revision: str | None, *, migrates: bool) -> Verdict:
    """Judge the schema's revision; `migrates`: `serve` brings it up to date itself."""
    if not schema.is_behind(revision):
        if revision == schema.HEAD:
            return fine(schema.HEAD)
        return warning(
            f"{revision}, newer than this firstview's {schema.HEAD}",
            "update firstview; until then it goes on with the newer schema",
        )
    seen = f"{revision or 'no tables yet'}; this firstview needs {schema.HEAD}"
    if migrates:
        return fine(f"{seen}, and `firstview serve` brings it there")
    return failure(seen, "run `firstview catalog migrate`")


def judge_latency(seconds: float, kind: str) -> Verdict:
    """Judge one trip to the database."""
    seen = f"{seconds * 1000:.1f} ms a question"
    if seconds > _SLOW[kind]:
        near = "put the database closer to firstview" if kind == "PostgreSQL" else "check the disk"
        return warning(f"{seen}: a clip's first view waits for several", near)
    return fine(seen)


def judge_version(version: int) -> Verdict:
    """Judge a PostgreSQL server's version, written as 150004."""
    seen = f"PostgreSQL {version // 10000}.{version % 10000}"
    if version < _OLDEST:
        return warning(f"{seen} gets no repairs any more", "upgrade the server to 14 or newer")
    return fine(seen)


def judge_connections(most: int, used: int, workers: int) -> Verdict:
    """Compare the connections that a server allows with what all processes may open."""
    wanted = workers * Limits().connections
    processes = "process" if workers == 1 else "processes"
    seen = f"{most - used} of {most} free, {workers} {processes} may take {wanted}"
    if most - used < wanted:
        return warning(
            seen,
            "raise max_connections of the server, or lower FIRSTVIEW_WORKERS; each replica and"
            f" each `firstview worker` takes up to {Limits().connections} too",
        )
    return fine(seen)
