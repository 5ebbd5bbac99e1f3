"""Settings that are allowed, and yet may not be what was meant.

Belongs here: judgements that need nothing but the settings and the environment. Must not know: what
is wrong beyond doubt, which stops every command (`proxy.mistakes`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from proxy.cli.doctor.finding import Notes, Verdict, failure, fine, warning
from proxy.settings import Settings

_FAL_WAITS = 15.0
"""Seconds that fal waits for the answer to a webhook."""
_CLOUDFLARE_KEEPS = 900.0
"""Seconds that Cloudflare keeps an idle connection, and may use it again."""


@dataclass(frozen=True, slots=True)
class SettingsCheck:
    """See `Check`; `in_file` is what `.env` sets, `environment` what the environment does."""

    settings: Settings
    in_file: Mapping[str, str] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    area: str = "settings"

    async def run(self, notes: Notes) -> None:
        """Judge them."""
        count = len(self.settings.model_fields_set)
        notes.add("values", fine(f"{len(type(self.settings).model_fields)}, of which {count} set"))
        for check, verdict in judge(self.settings):
            notes.add(check, verdict)
        for name in unread_by_aws(self.in_file, self.environment):
            mend = "export it, or give the file to systemd (EnvironmentFile=) or compose (env_file)"
            notes.add(
                name.lower(),
                failure(f"{name} stands in .env, where the bucket's client never looks", mend),
            )


def unread_by_aws(in_file: Mapping[str, str], environment: Mapping[str, str]) -> list[str]:
    """Variables that are meant for the bucket and do not reach it: `.env` is read by firstview."""
    return sorted(name for name in in_file if name.startswith("AWS_") and name not in environment)


def judge(settings: Settings) -> Iterator[tuple[str, Verdict]]:
    """What is odd about settings that can be used, each with a short name."""
    if settings.upstream_allow_insecure:
        yield (
            "insecure",
            warning(
                "FIRSTVIEW_UPSTREAM_ALLOW_INSECURE is on: http and private addresses too",
                "unset it anywhere but in tests and demos",
            ),
        )
    if settings.max_clip_bytes > settings.cache_max_bytes:
        yield (
            "cache",
            warning(
                "FIRSTVIEW_MAX_CLIP_BYTES is more than FIRSTVIEW_CACHE_MAX_BYTES: such clips are"
                " streamed through each time, and never stored",
                "raise FIRSTVIEW_CACHE_MAX_BYTES well above it",
            ),
        )
    if settings.max_viewers > settings.max_connections:
        yield (
            "viewers",
            warning(
                "FIRSTVIEW_MAX_VIEWERS is more than FIRSTVIEW_MAX_CONNECTIONS: never reached",
                "lower the one or raise the other",
            ),
        )
    if settings.keepalive_timeout <= _CLOUDFLARE_KEEPS:
        yield (
            "keep-alive",
            warning(
                f"FIRSTVIEW_KEEPALIVE_TIMEOUT is {settings.keepalive_timeout:g} s; Cloudflare uses"
                " a connection again after up to 900 s, and shows error 520 if it is closed",
                "set it to 910s",
            ),
        )
    if settings.webhook_patience >= _FAL_WAITS:
        yield (
            "webhooks",
            warning(
                f"FIRSTVIEW_WEBHOOK_PATIENCE is {settings.webhook_patience:g} s, and fal hangs up"
                " after 15 s",
                "set it to 5s",
            ),
        )
    expires = settings.upstream_expires_after
    if expires is not None and expires <= settings.expiry_margin:
        yield (
            "expiry",
            warning(
                "FIRSTVIEW_EXPIRY_MARGIN is no less than FIRSTVIEW_UPSTREAM_EXPIRES_AFTER: every"
                " clip is urgent, so none is",
                "lower FIRSTVIEW_EXPIRY_MARGIN to a part of it",
            ),
        )
    if settings.admin_token is None:
        yield (
            "admin API",
            warning(
                "FIRSTVIEW_ADMIN_TOKEN is not set: the admin API refuses everybody",
                "set it to a long random word, such as `openssl rand -hex 32` prints",
            ),
        )
