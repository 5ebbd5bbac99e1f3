"""What the public address's replies mean: ours, and those of whatever stands in front of us.

Belongs here: judgements of replies. Must not know: how they were asked for. Cloudflare's fields:
developers.cloudflare.com/cache/concepts/cache-responses.
"""

from __future__ import annotations

from typing import Final
from urllib.parse import urlsplit

from proxy.cli.doctor.asking import Answer
from proxy.cli.doctor.finding import Verdict, failure, fine, unchecked, warning
from proxy.upstream.allowlist import is_public

_CACHED: Final = {"HIT", "REVALIDATED", "STALE", "UPDATING"}
_CAN_BE: Final = {"MISS", "EXPIRED"}
_TOP: Final = "FIRSTVIEW_PUBLIC_URL"


def judge_address(url: str) -> Verdict:
    """Judge the address itself: whether fal and viewers can use it."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if host == "localhost" or host.endswith(".localhost") or (_is_ip(host) and not is_public(host)):
        return warning(
            f"{url} is good for this machine or network alone: neither fal's webhooks nor other"
            " viewers reach it",
            f"set {_TOP} to the address that viewers use",
        )
    if parts.scheme != "https":
        mend = f"put Cloudflare or another TLS proxy in front, and set {_TOP} to https://"
        return warning(f"{url} is not encrypted", mend)
    return fine(url)


def judge_health(answer: Answer, base: str) -> Verdict:
    """Judge `GET /healthz`."""
    if answer.status == 0:
        return failure(
            f"nobody answers at {base}: {answer.problem}",
            f"start `firstview serve`, correct {_TOP} or --url, or what stands in front of it",
        )
    if answer.status != 200 or answer.body.strip() != b"ok":  # noqa: PLR2004
        return failure(
            f"{base}/healthz is answered {_status(answer)}, which is not firstview's answer",
            f"let whatever stands in front pass requests on to FIRSTVIEW_LISTEN, or correct {_TOP}",
        )
    return fine(f"firstview answers at {base}")


def judge_head(answer: Answer) -> Verdict:
    """Judge `HEAD` of a stored clip by what players and caches need."""
    if answer.status != 200:  # noqa: PLR2004
        return _not_the_clip(answer)
    missing = []
    etag = answer.field("etag")
    if len(etag) < 3 or not etag.startswith('"'):  # noqa: PLR2004 - two quotes and something
        missing.append(f"a strong ETag (it has {etag or 'none'})")
    if answer.field("accept-ranges") != "bytes":
        missing.append("Accept-Ranges: bytes")
    if not answer.field("content-length").isdigit():
        missing.append("Content-Length")
    if answer.field("content-encoding"):
        missing.append("an untouched body (it has a Content-Encoding)")
    if missing:
        mend = "switch off whatever changes replies in front of firstview (compression, minifying)"
        return failure(f"the reply lacks {', '.join(missing)}", mend)
    return fine(f"200, {answer.field('content-length')} bytes, ETag {etag}")


def judge_range(answer: Answer, head: Answer) -> Verdict:
    """Judge a range of a stored clip, bytes 0 to 0, beside its HEAD."""
    if answer.status != 206:  # noqa: PLR2004
        if answer.status != 200:  # noqa: PLR2004
            return _not_the_clip(answer)
        mend = "let whatever stands in front pass Range on: players cannot seek without"
        return failure("a range is answered with the whole clip", mend)
    wanted = f"bytes 0-0/{head.field('content-length')}"
    same = answer.field("etag") == head.field("etag")
    if answer.field("content-range") != wanted or len(answer.body) != 1 or not same:
        return failure(
            f"Content-Range {answer.field('content-range')!r} and ETag {answer.field('etag')}"
            f" instead of {wanted!r} and {head.field('etag')}",
            "purge the clip from whatever caches in front: it holds another version",
        )
    return fine("206, one byte, the same ETag")


def judge_caching(answer: Answer, *, gated: bool) -> Verdict:
    """Judge Cache-Control of a stored clip."""
    said = answer.field("cache-control")
    words = {word.strip().partition("=")[0].lower() for word in said.split(",")}
    if gated:
        return fine(said) if said else unchecked("no Cache-Control")
    if not said or words & {"no-store", "no-cache", "private"} or "max-age=0" in said:
        mend = "unset FIRSTVIEW_CACHE_CONTROL, or the rule in front that replaces it"
        return warning(f"Cache-Control is {said or 'missing'}: nobody may keep clips", mend)
    return fine(said)


def judge_front(answer: Answer) -> Verdict:
    """Say whether Cloudflare stands in front, by CF-Ray."""
    ray = answer.field("cf-ray")
    if ray:
        return fine(f"Cloudflare is in front (CF-Ray {ray})")
    return unchecked("Cloudflare is not in front: viewers talk to this origin itself")


def judge_cache_rule(second: Answer, with_query: Answer) -> Verdict:
    """Judge CF-Cache-Status of a clip that was asked for before, without and with a query."""
    status = second.field("cf-cache-status").upper()
    rule = "the cache rule for /videos/* (`deploy/cloudflare/`, docs/cloudflare.md)"
    if status in {"DYNAMIC", "NONE/UNKNOWN", ""}:
        return failure(
            f"CF-Cache-Status is {status or 'missing'}: no rule lets Cloudflare cache this address",
            f"add {rule}: eligible for cache",
        )
    if status == "BYPASS":
        return failure(
            "CF-Cache-Status is BYPASS: a rule, a cookie or Cache-Control forbids caching",
            f"see that {rule} comes last, and that no rule bypasses the cache",
        )
    if status in _CAN_BE:
        return warning(
            f"CF-Cache-Status is {status} for a clip that was just asked for",
            f"ask again in a minute; if it stays so, see that {rule} honours the origin's TTL, and"
            " that tiered cache is on",
        )
    if status not in _CACHED:
        return warning(f"CF-Cache-Status is {status}", f"see {rule}")
    if with_query.field("cf-cache-status").upper() not in _CACHED:
        return warning(
            "kept, but once for each query: a signed link would never be a hit",
            f"let {rule} leave the query out of the cache key",
        )
    return fine(f"CF-Cache-Status {status}, whatever the query")


def judge_redirect(answer: Answer) -> Verdict:
    """Judge a stored clip's `GET` where FIRSTVIEW_REDIRECT_STORED sends viewers to the bucket."""
    if answer.status == 302:  # noqa: PLR2004
        host = urlsplit(answer.field("location")).netloc
        return fine(f"302 to {host}, as FIRSTVIEW_REDIRECT_STORED says")
    return _not_the_clip(answer)


def judge_link(answer: Answer) -> Verdict:
    """Judge a stored clip's `GET` with a link that was signed a moment ago."""
    if answer.status in {200, 206, 302}:
        return fine("a link by the newest key of FIRSTVIEW_SIGNING_KEYS shows the clip")
    if answer.status == 403:  # noqa: PLR2004
        return failure(
            "a link by the newest key of FIRSTVIEW_SIGNING_KEYS is refused",
            "restart `firstview serve` with that key, give the rule at the edge the same secret and"
            " ttl (FIRSTVIEW_LINK_LIFE), and see that the clocks agree",
        )
    return _not_the_clip(answer)


def judge_gate(wrong: Answer, none: Answer) -> Verdict:
    """Judge a gated clip's `GET` with a link to something else, and with none."""
    shown = [answer for answer in (wrong, none) if answer.status in {200, 206, 302}]
    if not shown:
        return fine("a gated clip is refused, and with a link to something else as well")
    which = "with a link to something else" if none not in shown else "without a link"
    if shown[0].field("cf-cache-status").upper() in _CACHED:
        mend = (
            "add the token rule (`deploy/cloudflare/`, docs/cloudflare.md), or unset"
            " FIRSTVIEW_EDGE_CHECKS_LINKS; then purge the cache"
        )
        return failure(f"Cloudflare shows a gated clip {which}", mend)
    return failure(
        f"a gated clip is shown {which}",
        "restart `firstview serve`, so that it knows FIRSTVIEW_GATED; see what else answers there",
    )


def judge_lock(answer: Answer, where: str) -> Verdict:
    """Judge a clip's address asked for at the origin without the edge's secret."""
    if answer.status == 0:
        return unchecked(f"the origin cannot be asked directly: {answer.problem}")
    if answer.status == 403:  # noqa: PLR2004
        return fine("the origin refuses what did not come through the edge")
    return warning(
        f"FIRSTVIEW_ORIGIN_SECRET is set, yet {where} answers {_status(answer)} without it",
        "restart `firstview serve` with it, or see what else listens there",
    )


def _not_the_clip(answer: Answer) -> Verdict:
    seen = f"a stored clip is answered {_status(answer)}"
    if answer.status in {301, 302, 307, 308}:
        return warning(
            f"{seen}, to {urlsplit(answer.field('location')).netloc or 'somewhere else'}",
            "nothing, if that is meant (FIRSTVIEW_REDIRECT_STORED); else see what redirects",
        )
    if answer.status in {401, 403}:
        mend = "see whether a firewall rule in front refuses it: firstview would have served it"
        return failure(seen, mend)
    if answer.status == 0:
        return failure(f"{seen}: {answer.problem}", "see firstview's log")
    if answer.status in {404, 410}:
        mend = (
            f"see that {answer.field('server') or 'what answers'} has the same catalog and bucket"
        )
        return failure(seen, mend)
    return failure(seen, "see firstview's log, and what stands in front of it")


def _status(answer: Answer) -> str:
    return str(answer.status) if answer.status else f"not at all ({answer.problem})"


def _is_ip(host: str) -> bool:
    return ":" in host or host.replace(".", "").isdigit()
