"""Which status may follow which: one table, checked at every change of a row.

    from / to   pending        available         stored        failed     lost
    pending     more is known  a URL came        in bucket     fal said   -
    available   -              re-pointed        filled        -          refused for an hour
    stored      -              missing, or       again         -          missing, and no
                               re-pointed                                 URL to go to
    failed      -              a later success   in bucket     again      -
    lost        -              re-pointed, or    a fill that   -          refused again
                it answers     was on its way
                again

Why the gaps are gaps: an error that arrives after the clip (`available`, `stored`) must not undo
it, since fal delivers out of order; a stored clip cannot be lost while the bucket has it; nothing
becomes unknown again once it was known.

Belongs here: the table. Must not know: what else changes in the row, or any database.
"""

from __future__ import annotations

from typing import Final

from proxy.errors import InvalidTransition
from proxy.records import Status

TRANSITIONS: Final[dict[Status, frozenset[Status]]] = {
    Status.PENDING: frozenset(
        {Status.PENDING, Status.AVAILABLE, Status.STORED, Status.FAILED},
    ),
    Status.AVAILABLE: frozenset({Status.AVAILABLE, Status.STORED, Status.LOST}),
    Status.STORED: frozenset({Status.STORED, Status.AVAILABLE, Status.LOST}),
    Status.FAILED: frozenset({Status.FAILED, Status.AVAILABLE, Status.STORED}),
    Status.LOST: frozenset({Status.LOST, Status.AVAILABLE, Status.STORED}),
}


def check(request_id: str, before: Status, after: Status) -> None:
    """Do nothing if `after` may follow `before`.

    Raises InvalidTransition, naming the generation and both.
    """
    if after not in TRANSITIONS[before]:
        raise InvalidTransition(f"generation {request_id} is {before}: it cannot become {after}")
