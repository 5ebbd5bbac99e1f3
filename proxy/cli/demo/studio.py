"""The demo's application: it has clips generated, and looks at none of them.

Belongs here: which generations there are, when each is begun and finished, and which of them fal
never reports. Must not know: how fal reports, or how a clip becomes owned.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

from proxy.catalog.generations import Generations
from proxy.cli.demo.clips import DemoClip, takes
from proxy.cli.demo.fal import DemoFal
from proxy.cli.demo.story import Story
from proxy.records import Registration, Status

MOST: Final = 12
"""Generations of one run: the demo is left running, and must not fill a disk."""
_UNREPORTED: Final = 2
"""Which of them, counted from 0, no webhook reports."""
_EVERY: Final = 4.0


class Studio:
    """Has clips generated, each in `seconds`, and tells the catalog what an application knows."""

    def __init__(
        self,
        clips: Sequence[DemoClip],
        generations: Generations,
        fal: DemoFal,
        story: Story,
        *,
        seconds: float,
    ) -> None:
        """Take the clips that can be generated, in their order."""
        self.clips = clips
        self._generations = generations
        self._fal = fal
        self._story = story
        self._seconds = seconds

    async def run(self) -> None:
        """Begin another generation every few seconds until all are made."""
        async with asyncio.TaskGroup() as under_way:
            for number, clip in enumerate(self.clips):
                await asyncio.sleep(_EVERY)
                under_way.create_task(self.generate(clip, reported=number != _UNREPORTED))

    async def generate(self, clip: DemoClip, *, reported: bool) -> None:
        """Have one clip generated; unless `reported`, fal finishes it and tells nobody."""
        await self._generations.register(
            [Registration(request_id=clip.request_id, model=clip.model, prompt=clip.prompt)]
        )
        self._fal.begin(clip)
        self._story.submitted(clip)
        await asyncio.sleep(self._seconds)
        self._fal.finish(clip)
        if not reported:
            self._story.unreported(clip)
        elif not await self._fal.report(clip):
            self._story.undelivered(clip)


async def takes_to_come(generations: Generations) -> list[DemoClip]:
    """The takes of this run: the first that an earlier run with `--keep` has not made already."""
    found: list[DemoClip] = []
    for clip in takes():
        row = await generations.get(clip.request_id)
        if row is None or row.status is not Status.STORED:
            found.append(clip)
            if len(found) == MOST:
                break
    return found
