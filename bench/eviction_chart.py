"""The picture of `eviction`: for each kind of requests, hits over the size of the cache.

Belongs here: drawing it, as SVG text. Must not know: how hits were counted. Colours are of medium
lightness, text too: a white and a dark background will do.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from bench.chart import COLOURS
from bench.results import OURS, PEER

_COLOURS = {"S3-FIFO": COLOURS[OURS], "SIEVE": COLOURS["varnish"], "LRU": COLOURS[PEER]}
_WIDTH, _HEIGHT, _LEFT, _TOP = 340, 220, 56, 40
_PANEL = _WIDTH + _LEFT + 20
_STYLE = (
    "text{font:12px system-ui,sans-serif;fill:#768390}"
    ".grid{stroke:#8b949e;stroke-opacity:.3}"
    "polyline{fill:none;stroke-width:2}"
)


def draw(shares: Sequence[float], curves: Mapping[str, Mapping[str, Sequence[float]]]) -> str:
    """One panel for each kind of requests."""
    width, height = _PANEL * len(curves), _TOP + _HEIGHT + 64
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" role="img">',
        "<title>Share of requests that hit, by size of the cache</title>",
        f"<style>{_STYLE}</style>",
    ]
    for number, (kind, policies) in enumerate(curves.items()):
        lines += _panel(_PANEL * number + _LEFT, f"requests with a {kind}", shares, policies)
    return "\n".join([*lines, "</svg>"]) + "\n"


def _panel(
    left: int, title: str, shares: Sequence[float], policies: Mapping[str, Sequence[float]]
) -> list[str]:
    bottom = _TOP + _HEIGHT
    lines = [f'<text x="{left}" y="{_TOP - 16}">{title}: share that hits</text>']
    for percent in (0, 20, 40, 60, 80):
        y = _y(percent / 100)
        lines.append(f'<line class="grid" x1="{left}" x2="{left + _WIDTH}" y1="{y}" y2="{y}"/>')
        lines.append(f'<text x="{left - 8}" y="{y + 4}" text-anchor="end">{percent} %</text>')
    for share in shares:
        x = left + _x(share, shares)
        lines.append(f'<text x="{x}" y="{bottom + 18}" text-anchor="middle">{share:.0%}</text>')
    for number, (policy, hits) in enumerate(policies.items()):
        colour = _COLOURS[policy]
        points = " ".join(
            f"{left + _x(share, shares)},{_y(each)}"
            for share, each in zip(shares, hits, strict=True)
        )
        lines.append(f'<polyline points="{points}" style="stroke:{colour}"/>')
        x = left + 90 * number
        lines.append(f'<text x="{x}" y="{bottom + 42}" style="fill:{colour}">{policy}</text>')
    return lines


def _x(share: float, shares: Sequence[float]) -> float:
    """By the logarithm, from the smallest to the largest."""
    low, high = math.log(shares[0]), math.log(shares[-1])
    return round((math.log(share) - low) / (high - low) * _WIDTH, 1)


def _y(hits: float) -> float:
    return round(_TOP + _HEIGHT * (1 - hits / 0.8), 1)
