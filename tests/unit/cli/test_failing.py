"""What a command says of the error that ended it."""

from __future__ import annotations

import errno
import os
import sqlite3

import pytest

from proxy.cli.failing import told
from proxy.errors import BucketUnavailable, CatalogUnavailable, FirstviewError


def after(cause: Exception) -> FirstviewError:
    error = CatalogUnavailable()
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("cause", "why", "mend"),
    [
        (ConnectionRefusedError(111, "Connection refused"), "refused", "start the server"),
        (TimeoutError(), "no answer in time", "host and port"),
        (
            PermissionError(errno.EACCES, os.strerror(errno.EACCES), "/data/x"),
            "/data/x: Permission denied",
            "write to the file and its folder",
        ),
        (sqlite3.OperationalError("database or disk is full"), "disk is full", "make room"),
        (sqlite3.DatabaseError("file is not a database"), "not a database", "restore a backup"),
    ],
)
def test_of_a_catalog_that_is_away_it_says_why_and_what_to_mend(
    cause: Exception, why: str, mend: str
) -> None:
    said = told(after(cause))
    assert said.startswith("The catalog cannot be reached: ")
    assert why in said
    assert mend in said
    assert "\n" not in said


def test_of_any_other_error_it_says_its_own_words() -> None:
    assert told(BucketUnavailable("the store is away")) == "the store is away"
    assert told(CatalogUnavailable()) == "The catalog cannot be reached."
