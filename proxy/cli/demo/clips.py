"""The demo's clips: what an application would have generated, and where fal would have put it.

Belongs here: their names, models, prompts and addresses, and reading them from the package. Must
not know: how they are served. `tools/make-demo-clips` makes the files.
"""

from __future__ import annotations

import hashlib
import itertools
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache, cached_property
from importlib.resources import files
from typing import Final

_FOLDER: Final = files("proxy").joinpath("page", "demo")


@dataclass(frozen=True)
class DemoClip:
    """One generation: `name` is the file's name without ending.

    `take` counts those that are made of the same prompt while the demo runs; 0 was there before.
    """

    name: str
    model: str
    prompt: str
    take: int = 0

    @property
    def title(self) -> str:
        """What people call the clip."""
        return f"{self.name}, take {self.take}" if self.take else self.name

    @cached_property
    def request_id(self) -> str:
        """A UUID, as fal's ids are; the same in every run, so that `--keep` recognises it."""
        take = f":{self.take}" if self.take else ""
        return str(uuid.uuid5(uuid.NAMESPACE_URL, f"firstview-demo:{self.name}{take}"))

    @cached_property
    def fal_path(self) -> str:
        """The clip's path on the fake fal.media, in the form that the real one gives out."""
        digest = hashlib.sha256(self.request_id.encode()).hexdigest()
        return f"/files/b/0a{digest[:6]}/{digest[6:26]}.mp4"

    @property
    def data(self) -> bytes:
        """The mp4; every take has the same one."""
        return _read(f"{self.name}.mp4")

    @property
    def index_at_end(self) -> bool:
        """Whether the index (`moov`) follows the picture, so that players ask for the end first."""
        return self.data.index(b"mdat") < self.data.index(b"moov")


CLIPS: Final = (
    DemoClip(
        "mandelbrot",
        "fal-ai/veo3.1/fast",
        "One endless dive along the edge of the Mandelbrot set, neon on black",
    ),
    DemoClip(
        "ink",
        "fal-ai/wan/v2.7/text-to-video",
        "Drops of coloured ink meet in slow water, seen from above, macro lens",
    ),
    DemoClip(
        "aurora",
        "fal-ai/kling-video/v2.6/pro/text-to-video",
        "Bands of aurora turn slowly over a violet night, minimal, no horizon",
    ),
    DemoClip(
        "life",
        "fal-ai/minimax/hailuo-2.3/standard/text-to-video",
        "Conway's game of life as city lights, from a plane at night",
    ),
    DemoClip(
        "weave",
        "fal-ai/bytedance/seedance/v1.5/pro/text-to-video",
        "A loom weaves rule 110 into linen, thread by thread, in one shot",
    ),
    DemoClip(
        "clock",
        "fal-ai/ltx-2/text-to-video",
        "A test card from 1982 that counts its own frames",
    ),
)


def takes() -> Iterator[DemoClip]:
    """What the application has generated one after the other, without end; short clips first."""
    for number in itertools.count(1):
        for clip in reversed(CLIPS):
            yield replace(clip, prompt=f"Take {number}: {clip.prompt}", take=number)


@cache
def _read(name: str) -> bytes:
    return _FOLDER.joinpath(name).read_bytes()


def static_file(name: str) -> bytes:
    """Read one of the page's own files. Raises FileNotFoundError."""
    return _FOLDER.joinpath(name).read_bytes()
