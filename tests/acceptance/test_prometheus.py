"""A real Prometheus scrapes two workers: every panel and every rule has something to show."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.fakes.fal import FakeFal, make_clip
from tests.fixtures.origin import wait_for
from tests.fixtures.programs import require_program
from tests.fixtures.servers import free_port
from tests.fixtures.serving import Serving, serving

pytestmark = [pytest.mark.needs("prometheus"), pytest.mark.timeout(240)]

ROOT = Path(__file__).resolve().parents[2]
_PATIENCE = 30.0
COMPARED = re.compile(r"^(.*) [<>] [0-9.]+$", re.DOTALL)
CONFIG = """
global: {{scrape_interval: 300ms, scrape_timeout: 300ms, evaluation_interval: 300ms}}
rule_files: ["{rules}"]
scrape_configs:
  - job_name: firstview
    static_configs: [{{targets: ["{target}"]}}]
"""


@dataclass
class Prometheus:
    """A running one."""

    client: aiohttp.ClientSession
    url: str

    async def ask(self, path: str, **given: str) -> Any:
        """Ask its API."""
        async with self.client.get(f"{self.url}/api/v1/{path}", params=given) as reply:
            said = await reply.json()
            assert said["status"] == "success", (given, said)
            return said["data"]

    async def query(self, query: str) -> list[dict[str, Any]]:
        """What a query finds now."""
        found: list[dict[str, Any]] = (await self.ask("query", query=query))["result"]
        return found

    async def finds(self, query: str) -> list[dict[str, Any]]:
        """Wait until a query finds something: not every scrape is in time on a busy machine."""
        return await wait_for(lambda: self._found(query), _PATIENCE)

    async def _found(self, query: str) -> list[dict[str, Any]] | None:
        return await self.query(query) or None

    async def value(self, query: str) -> float:
        """The one value that a query finds."""
        [found] = await self.finds(query)
        return float(found["value"][1])

    async def comes_to(self, query: str, value: float) -> None:
        """Wait until a query finds that value."""

        async def does() -> bool:
            return await self.value(query) == value

        await wait_for(does, _PATIENCE)

    async def rules(self) -> list[dict[str, Any]]:
        """Every rule."""
        return [rule for group in (await self.ask("rules"))["groups"] for rule in group["rules"]]

    async def samples(self) -> float:
        """How many times firstview has been scraped in time."""
        found = await self.query('sum_over_time(up{job="firstview"}[5m])')
        return float(found[0]["value"][1]) if found else 0.0


@contextlib.asynccontextmanager
async def prometheus(tmp_path: Path, target: str) -> AsyncIterator[Prometheus]:
    """Run one that scrapes an admin listener."""
    address = f"127.0.0.1:{free_port()}"
    config = tmp_path / "prometheus.yml"
    rules = ROOT / "deploy" / "prometheus" / "alerts.yml"
    config.write_text(CONFIG.format(rules=rules, target=target))
    with (tmp_path / "prometheus.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            require_program("prometheus"),
            f"--config.file={config}",
            f"--storage.tsdb.path={tmp_path / 'tsdb'}",
            f"--web.listen-address={address}",
            stdout=log,
            stderr=log,
        )
    try:
        async with aiohttp.ClientSession() as client:
            yield Prometheus(client, f"http://{address}")
    finally:
        process.kill()
        await process.wait()


def panels() -> list[tuple[str, str]]:
    """The title and a query of each panel, as Grafana would ask."""
    text = (ROOT / "deploy" / "grafana" / "firstview.json").read_text()
    chosen = {"$job": "firstview", "$instance": ".*", "$__rate_interval": "30s"}
    found = []
    for panel in json.loads(text)["panels"]:
        for target in panel.get("targets", []):
            query = target["expr"]
            for name, value in chosen.items():
                query = query.replace(name, value)
            found.append((panel["title"], query))
    return found


async def test_every_panel_and_every_rule_has_data_of_two_workers(
    tmp_path: Path, fal: FakeFal
) -> None:
    data = make_clip(100_000, 63)
    async with (
        serving(tmp_path / "data", workers=2, cache_max_bytes="3GiB") as server,
        prometheus(tmp_path, server.admin) as its,
    ):
        await server.register("clip", fal.add("/clip.mp4", data))
        await view(server, data)
        await server.stored("clip")
        await view(server, data)
        before = await wait_for(lambda: scraped(its, 1), 60)
        await view(server, data)  # which has a rate
        await wait_for(lambda: scraped(its, before + 3), 60)  # all of it, and a rate

        async def empty() -> list[str]:
            asked = [(title, its.query(query)) for title, query in panels()]
            answers = await asyncio.gather(*(answer for _, answer in asked))
            return [title for (title, _), found in zip(asked, answers, strict=True) if not found]

        async def all_have_data() -> bool:
            return not await empty()

        with contextlib.suppress(AssertionError):
            await wait_for(all_have_data, _PATIENCE)
        assert not await empty()

        rules = await its.rules()
        assert len([rule for rule in rules if rule["type"] == "alerting"]) > 20
        for rule in rules:
            assert rule["health"] == "ok", rule
            compared = COMPARED.match(rule["query"])
            assert (compared is not None) == (rule["type"] == "alerting"), rule["query"]
            query = rule["query"] if compared is None else compared[1]
            assert await its.finds(query), rule["name"]
        await wait_for(lambda: recorded(its, rules), 30)
        firing = await its.query('ALERTS{alertstate="firing"}')
        assert not firing

        # What must not be added up, and what must.
        assert await its.value("firstview_disk_limit_bytes") == 3 * 1024**3
        assert await its.value("firstview_build_info") == 1
        assert await its.value('firstview_oldest_due_job_seconds{kind="mirror"}') < 60
        await its.comes_to("firstview_workers", 2)
        assert await its.value('firstview_limit{limit="max_fills"}') == 2 * 256
        assert await its.value("firstview_cached_clips") == 0  # a directory is its own copy
        await its.comes_to("firstview_stored_total", 1)
        await its.comes_to('sum(firstview_requests_total{tier!="none"})', 3)
        await its.comes_to("sum(firstview_first_byte_seconds_count)", 3)
        await its.comes_to("sum(firstview_reply_seconds_count)", 3)
        await its.comes_to("sum(firstview_sent_bytes_total)", 3 * len(data))
        assert await its.value("time() - process_start_time_seconds") < 240


async def view(server: Serving, data: bytes) -> None:
    async with server.client.get(server.url("clip")) as reply:
        assert await reply.read() == data


async def scraped(its: Prometheus, times: float) -> float | None:
    try:
        found = await its.samples()
    except aiohttp.ClientError:  # it has not begun
        return None
    return found if found >= times else None


async def recorded(its: Prometheus, rules: list[dict[str, Any]]) -> bool:
    names = [rule["name"] for rule in rules if rule["type"] == "recording"]
    return all([await its.query(name) for name in names])
