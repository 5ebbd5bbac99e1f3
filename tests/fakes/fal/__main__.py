"""The fake as a process of its own: `python -m tests.fakes.fal --clip a.mp4=200000000`.

Prints one line of JSON with its `url` and then serves until it is told to stop. The records of
its requests are at `/_/requests`.
"""

import argparse
import asyncio
import json
import signal
from pathlib import Path

from tests.fakes.fal.behaviour import Behaviour
from tests.fakes.fal.media import Clip
from tests.fakes.fal.server import FakeFal


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.fakes.fal",
        description=__doc__,
        fromfile_prefix_chars="@",  # many clips: one argument a line
    )
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--rate", type=float, help="bytes a second of every body")
    parser.add_argument("--delay", type=float, default=0.0, help="seconds before every answer")
    parser.add_argument("--ignore-ranges", action="store_true")
    parser.add_argument(
        "--clip", action="append", default=[], help="PATH=SIZE[:SEED[:end]], made up as it is read"
    )
    parser.add_argument("--file", action="append", default=[], help="PATH=FILE")
    return parser.parse_args()


def _made_up(text: str) -> Clip:
    size, seed, where, *_ = [*text.split(":"), "0", ""][:3]
    return Clip(int(size), int(seed), moov_at_end=where == "end")


async def _serve(arguments: argparse.Namespace) -> None:
    how = Behaviour(
        rate=arguments.rate,
        delay=arguments.delay,
        ranges="ignore" if arguments.ignore_ranges else "honour",
    )
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with FakeFal(port=arguments.port) as fal:
        for entry in arguments.clip:
            path, _, made_up = entry.partition("=")
            fal.add(path, _made_up(made_up), how)
        for entry in arguments.file:
            path, _, file = entry.partition("=")
            fal.add(path, await asyncio.to_thread(Path(file).read_bytes), how)
        print(json.dumps({"url": fal.url(""), "port": fal.port}), flush=True)
        await stop.wait()


if __name__ == "__main__":
    asyncio.run(_serve(_arguments()))
