"""Clips that are in the bucket and not on the disk: what firstview adds to the bucket's own time.

Belongs here: getting clips there, and asking for them. Must not know: how servers are started.

Clips get into the bucket as they do in production: one firstview fills them from upstream. Then
another one on the same catalog, with an empty disk, is asked.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from bench import firstview, nginx, s3
from bench.asks import Ask, whole
from bench.clips import write_clip
from bench.first_byte import DIRECT, added, in_turn
from bench.hits import wait_quiet
from bench.plan import Setup
from bench.results import OURS, Mark, Outcome
from bench.server import Server
from bench.turns import all_of
from proxy.storage import keys

NAMES = ("bucket-hit",)
LENGTH = 256 * 1024
_MARK = Mark(2.0, at_least=False)


def run(_: Sequence[str], setup: Setup) -> Iterator[Outcome]:
    """Ask the bucket and firstview in turn for the same clips."""
    if not s3.PROGRAM.exists():
        yield Outcome("bucket-hit", "not measured: no S3 server (make setup)")
        return
    home, cores, count = setup.home, setup.cores, setup.options.first_bytes
    (home / "files").mkdir()
    write_clip(home / "files" / "small.mp4", LENGTH)
    turns = [
        [f"small-{turn}x{number}" for number in range(count)]
        for turn in range(setup.options.rounds + 1)
    ]
    clips = [clip for some in turns for clip in some]
    with (
        nginx.upstream(home / "upstream", home / "files", cores.upstream) as upstream,
        s3.bucket(home / "s3", cores.upstream) as bucket,
    ):
        catalog = firstview.database(home, {})
        settings = bucket.settings | {"FIRSTVIEW_DATABASE_URL": catalog}
        with firstview.origin(
            home / "first", upstream.port, cores.server, clips=clips, settings=settings
        ) as first:
            sample, _seen = all_of(first, whole(map(first.path, clips)), connections=4)
            wait_quiet(first)
        with firstview.origin(home / OURS, upstream.port, cores.server, settings=settings) as ours:

            def ask(server: Server, clip: str) -> Ask:
                if server is ours:
                    return Ask(server.path(clip))
                return bucket.ask(keys.clip_key(clip))

            servers = {DIRECT: bucket.server, OURS: ours}
            rounds = [in_turn(servers, each, ask) for each in turns][1:]
            outcome = Outcome(
                "bucket-hit",
                "time to first byte of stored 256 KiB clips that are not on the disk, over "
                "presigned GETs from the bucket, one at a time, connections kept",
                rounds,
                added(rounds, OURS, _MARK),
                failed=sample.errors,
            )
            found = ours.metric("firstview_filled_bytes_total")
            outcome.notes.append(f"{found / LENGTH:.0f} clips were brought onto the disk beside it")
            yield outcome
