"""The stage: a proxy, a fake fal.media and a page, all in one process and on loopback only.

Belongs here: ports, settings that owe nothing to the environment, and starting and stopping the
three. Must not know: what is printed, or what the viewers do.
"""

from __future__ import annotations

import contextlib
import errno
import socket
import tempfile
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from aiohttp import web
from pydantic import ByteSize
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource

from proxy.app import App
from proxy.cli.demo.clips import CLIPS
from proxy.cli.demo.page import DemoPage
from proxy.cli.demo.source import DemoSource
from proxy.cli.demo.story import Story
from proxy.errors import SettingsError
from proxy.records import Registration, Status
from proxy.settings import Settings

HOST: Final = "127.0.0.1"

_DRAIN: Final = 0.2
"""Seconds that replies in progress get at the end: nobody waits long for a demo to go away."""


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
    def speed(self) -> str:
        """The source's speed in words, such as `1 MiB/s`."""
        return ByteSize(self.rate).human_readable(separator=" ").replace(".0 ", " ") + "/s"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ports:
    """Where the four listen; `moved` says in words which defaults were taken already."""

    public: int
    admin: int
    page: int
    fal: int
    moved: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """All that runs."""

    app: App
    source: DemoSource
    ports: Ports
    data_dir: Path

    @property
    def public_url(self) -> str:
        """The address that viewers use."""
        return f"http://{HOST}:{self.ports.public}"


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
async def open_stage(options: Options, story: Story) -> AsyncIterator[Stage]:
    """Start everything with the clips registered; stop it, and leave nothing behind.

    Raises SettingsError for a port or a directory that cannot be used.
    """
    ports = choose_ports(options)
    source = DemoSource(CLIPS, rate=options.rate, latency=options.latency)
    async with contextlib.AsyncExitStack() as stack:
        data_dir = stack.enter_context(_folder(options.keep))
        try:
            await _serve(stack, source.app(), ports.fal)
            app = await stack.enter_async_context(App(_settings(ports, data_dir)).running())
            stage = Stage(app=app, source=source, ports=ports, data_dir=data_dir)
            await _register(app, story, ports)
            page = DemoPage(
                story, source, app.metrics, public_url=stage.public_url, speed=options.speed
            )
            await _serve(stack, page.app(), ports.page)
        except OSError as error:
            raise SettingsError(f"firstview demo cannot start: {error}") from error
        yield stage


def choose_ports(options: Options) -> Ports:
    """Find a port for each listener. Raises SettingsError for one that was asked for and is taken.

    A default that is taken is replaced by any free one; a port of 0 asks for just that.
    """
    moved: list[str] = []
    chosen: list[int] = []
    wanted = {"port": 8080, "admin-port": 8081, "page-port": 8082, "fal-port": 8083}
    with contextlib.ExitStack() as held:
        for name, default in wanted.items():
            asked = getattr(options, name.replace("-", "_"))
            port = _bind(held, default if asked is None else asked)
            if port is None and asked is not None:
                raise SettingsError(f"--{name}: port {asked} is taken; leave it out to find one")
            if port is None:
                port = _bind(held, 0) or 0
                moved.append(f"port {default} is taken, so {port} it is (--{name})")
            chosen.append(port)
    public, admin, page, fal = chosen
    return Ports(public=public, admin=admin, page=page, fal=fal, moved=tuple(moved))


def _bind(held: contextlib.ExitStack, port: int) -> int | None:
    """Hold a port while the others are being chosen, so that no two get the same; None if taken."""
    probe = held.enter_context(socket.socket())
    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        probe.bind((HOST, port))
    except OSError as error:
        if error.errno in {errno.EADDRINUSE, errno.EACCES}:
            return None
        raise
    found: int = probe.getsockname()[1]
    return found


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


def _settings(ports: Ports, data_dir: Path) -> Settings:
    return _Closed(
        data_dir=data_dir,
        listen=f"{HOST}:{ports.public}",
        admin_listen=f"{HOST}:{ports.admin}",
        public_url=f"http://{HOST}:{ports.public}",
        upstream_hosts=(HOST,),
        upstream_allow_insecure=True,
        log_level="debug",  # the story is told from the replies' log entries
        disk_reserve=ByteSize(16 * 1024 * 1024),
        drain_timeout=_DRAIN,
    )


async def _serve(stack: contextlib.AsyncExitStack, app: web.Application, port: int) -> None:
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=_DRAIN)
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    await web.TCPSite(runner, HOST, port).start()


async def _register(app: App, story: Story, ports: Ports) -> None:
    """Tell the catalog of the clips, as `firstview import` does; an earlier run's stay owned."""
    await app.generations.register(
        [
            Registration(
                request_id=clip.request_id,
                fal_url=f"http://{HOST}:{ports.fal}{clip.fal_path}",
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
