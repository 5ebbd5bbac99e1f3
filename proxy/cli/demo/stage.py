"""The stage: a proxy, a fake fal and a page, all in one process and on loopback only.

Belongs here: settings that owe nothing to the environment, and starting and stopping the three.
Must not know: what is printed, or what the viewers do.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from aiohttp import web
from pydantic import ByteSize, SecretStr
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource

from proxy.app import App
from proxy.catalog.sweeping import Sweeping
from proxy.cli.demo import fal
from proxy.cli.demo.clips import CLIPS, DemoClip
from proxy.cli.demo.fal import DemoFal
from proxy.cli.demo.page import DemoPage
from proxy.cli.demo.ports import HOST, Ports, choose_ports
from proxy.cli.demo.source import DemoSource
from proxy.cli.demo.story import Story
from proxy.cli.demo.studio import Studio, takes_to_come
from proxy.errors import SettingsError
from proxy.records import Registration, Status
from proxy.settings import Settings
from proxy.storage import keys

ADMIN_TOKEN: Final = "demo"  # noqa: S105 - it opens nothing but the demo, on loopback
WEBHOOK_PATH: Final = "/webhooks/fal"

_DRAIN: Final = 0.2
"""Seconds that replies in progress get at the end: nobody waits long for a demo to go away."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How fast things happen without a viewer, in seconds."""

    generation: float
    pending_after: float
    sweep_every: float


LEISURELY: Final = Pace(generation=3.0, pending_after=9.0, sweep_every=4.0)
HURRIED: Final = Pace(generation=0.3, pending_after=0.6, sweep_every=0.4)


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What was asked for on the command line; a port that was not is None, sizes are bytes."""

    rate: float
    latency: float
    port: int | None = None
    admin_port: int | None = None
    page_port: int | None = None
    fal_port: int | None = None
    keep: Path | None = None

    @property
    def asked_ports(self) -> dict[str, int | None]:
        """The ports by their options' names."""
        return {
            "port": self.port,
            "admin-port": self.admin_port,
            "page-port": self.page_port,
            "fal-port": self.fal_port,
        }

    @property
    def speed(self) -> str:
        """The source's speed in words, such as `1 MiB/s`."""
        return ByteSize(self.rate).human_readable(separator=" ").replace(".0 ", " ") + "/s"


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """All that runs."""

    app: App
    source: DemoSource
    studio: Studio
    ports: Ports
    data_dir: Path

    @property
    def public_url(self) -> str:
        """The address that viewers use."""
        return f"http://{HOST}:{self.ports.public}"

    def url(self, clip: DemoClip) -> str:
        """Where viewers find a clip."""
        return self.public_url + keys.clip_path(clip.request_id)


class _Closed(Settings):
    """Settings that hear of nothing but what the demo itself says."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Leave out the environment, `.env` and secrets: nobody's bucket or key is touched."""
        del settings_cls, env_settings, dotenv_settings, file_secret_settings
        return (init_settings,)


@contextlib.asynccontextmanager
async def open_stage(options: Options, story: Story, pace: Pace) -> AsyncIterator[Stage]:
    """Start everything with the clips registered; stop it, and leave nothing behind.

    Raises SettingsError for a port or a directory that cannot be used.
    """
    ports = choose_ports(options.asked_ports)
    public_url = f"http://{HOST}:{ports.public}"
    maker = DemoFal(address=f"http://{HOST}:{ports.fal}", webhook_url=f"{public_url}{WEBHOOK_PATH}")
    source = DemoSource(CLIPS, rate=options.rate, latency=options.latency)
    async with contextlib.AsyncExitStack() as stack:
        data_dir = stack.enter_context(_folder(options.keep))
        settings = _settings(ports, data_dir, pace)
        try:
            at_fal = source.app()
            maker.add_routes(at_fal)
            await _serve(stack, at_fal, ports.fal)
            app = await stack.enter_async_context(App(settings).running())
            await _register(app, story, maker)
            clips = await takes_to_come(app.generations)
            source.add(clips)
            rows = Sweeping(app.catalog, expires_after=None).meanings
            page = DemoPage(
                story, rows, source, app.metrics, public_url=public_url, speed=options.speed
            )
            await _serve(stack, page.app(), ports.page)
        except OSError as error:
            raise SettingsError(f"firstview demo cannot start: {error}") from error
        studio = Studio(clips, app.generations, maker, story, seconds=pace.generation)
        yield Stage(app=app, source=source, studio=studio, ports=ports, data_dir=data_dir)


@contextlib.contextmanager
def _folder(keep: Path | None) -> Iterator[Path]:
    """The data directory: the one to keep, or one that is removed at the end."""
    if keep is None:
        with tempfile.TemporaryDirectory(prefix="firstview-demo-") as folder:
            yield Path(folder)
        return
    try:
        keep.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SettingsError(f"--keep: cannot use {keep}: {error.strerror}") from error
    yield keep.absolute()


def _settings(ports: Ports, data_dir: Path, pace: Pace) -> Settings:
    at_fal = f"http://{HOST}:{ports.fal}"
    return _Closed(
        data_dir=data_dir,
        listen=f"{HOST}:{ports.public}",
        admin_listen=f"{HOST}:{ports.admin}",
        admin_token=SecretStr(ADMIN_TOKEN),
        public_url=f"http://{HOST}:{ports.public}",
        upstream_hosts=(HOST,),
        upstream_allow_insecure=True,
        fal_jwks_url=at_fal + fal.JWKS_PATH,
        fal_queue_url=at_fal + fal.QUEUE_PATH,
        fal_api_url=at_fal,
        fal_key=SecretStr(fal.KEY),
        sweep_every=pace.sweep_every,
        pending_after=pace.pending_after,
        log_level="debug",  # the story is told from the replies' log entries
        access_log="errors",
        disk_reserve=ByteSize(16 * 1024 * 1024),
        drain_timeout=_DRAIN,
    )


async def _serve(stack: contextlib.AsyncExitStack, app: web.Application, port: int) -> None:
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=_DRAIN)
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    await web.TCPSite(runner, HOST, port).start()


async def _register(app: App, story: Story, maker: DemoFal) -> None:
    """Tell the catalog of the clips, as `firstview import` does; an earlier run's stay owned."""
    await app.generations.register(
        [
            Registration(
                request_id=clip.request_id,
                fal_url=maker.url_of(clip),
                model=clip.model,
                prompt=clip.prompt,
                content_length=len(clip.data),
            )
            for clip in CLIPS
        ]
    )
    for request_id, chapter in story.chapters.items():
        row = await app.generations.get(request_id)
        chapter.owned = row is not None and row.status is Status.STORED
