"""Every scenario by name, and the order in which they run.

Belongs here: which file measures which of them. Must not know: how.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench import (
    bucket_hits,
    cold,
    crowd,
    eviction,
    first_byte,
    growth,
    hits,
    memory,
    metrics,
    mirror,
    webhooks,
    workers,
)
from bench.machine import Cores
from bench.plan import Options, Setup
from bench.results import Outcome

Run = Callable[[Sequence[str], Setup], Iterator[Outcome]]


@dataclass(frozen=True, slots=True)
class _Group:
    names: tuple[str, ...]
    run: Run


_GROUPS = tuple(
    _Group(module.NAMES, module.run)
    for module in (hits, cold, crowd, first_byte, bucket_hits, workers, memory, growth, metrics)
)
_EXTRA = tuple(_Group(module.NAMES, module.run) for module in (webhooks, mirror, eviction))
NAMES = tuple(name for group in _GROUPS for name in group.names)
EXTRA = tuple(name for group in _EXTRA for name in group.names)
"""These have no peer and run only when they are named."""


def run(options: Options, cores: Cores) -> Iterator[Outcome]:
    """Run what is wanted, each group in an empty directory that goes away afterwards."""
    for group in (*_GROUPS, *_EXTRA):
        wanted = [name for name in group.names if name in options.scenarios]
        if wanted:
            with tempfile.TemporaryDirectory(
                prefix="bench-", dir=options.work_dir, ignore_cleanup_errors=True
            ) as folder:
                yield from _measured(group, wanted, Setup(options, cores, Path(folder)))


def _measured(group: _Group, wanted: list[str], setup: Setup) -> Iterator[Outcome]:
    """A group that breaks down is told of, and does not keep the others from being measured."""
    try:
        yield from group.run(wanted, setup)
    except (RuntimeError, OSError) as error:
        reason = " ".join(str(error).split())[:500]
        yield Outcome(
            f"{'+'.join(wanted)}!", f"broken off: {type(error).__name__}: {reason}", failed=1
        )
