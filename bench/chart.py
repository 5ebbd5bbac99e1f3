"""The picture: requests a second of every server, as multiples of nginx's.

Belongs here: drawing it, as SVG text. Must not know: how anything was measured, files.

Bars end at the median of the rounds, whiskers at the smallest and the largest. Colours are of
medium lightness, text too: a white and a dark background will do.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from html import escape

from bench.archive import Record
from bench.results import OURS, PEER, Outcome, Spread, ratio

COLOURS = {
    OURS: "#e8590c",
    PEER: "#2f9e44",
    "varnish": "#4c6ef5",
    "trafficserver": "#ae3ec9",
}
LEFT = 380
"""Where bars begin."""
_WIDTH, _RIGHT = 900, 60
_BAR, _GAP, _TOP, _BOTTOM = 11, 14, 56, 34
_LARGEST = 4.0
"""What is larger ends at the border, with its number beside it."""
_UNIT = "Requests a second, nginx = 1"
_STYLE = (
    "text{font:12px system-ui,sans-serif;fill:#768390}"
    ".axis{stroke:#8b949e;stroke-width:1}.grid{stroke:#8b949e;stroke-opacity:.3}"
    ".whisker{stroke:#768390;stroke-width:1.6}"
)


@dataclass(frozen=True, slots=True)
class _Scale:
    largest: float

    def x(self, value: float) -> float:
        share = min(value, self.largest) / self.largest
        return round(LEFT + share * (_WIDTH - LEFT - _RIGHT), 1)


def draw(record: Record) -> str:
    """All scenarios in which servers are compared by their speed."""
    drawn = [(one, speeds(one)) for one in record.outcomes if comparable(one)]
    highs = [found.high for _, each in drawn for found in each.values()]
    scale = _Scale(min(_LARGEST, max([1.25, *highs]) * 1.05))
    named = Counter(_title(outcome) for outcome, _ in drawn)
    body, y = [], _TOP
    for outcome, each in drawn:
        title = _title(outcome)
        if named[title] > 1:
            title += f" ({outcome.name})"
        body += _group(title, each, y, scale)
        y += len(each) * _BAR + _GAP
    return "\n".join([*_frame(record, scale, y), *body, "</svg>"]) + "\n"


def comparable(outcome: Outcome) -> bool:
    """Whether its rounds are of requests a second, of us and of the peer, at full speed."""
    speed = any("requests a second" in one.name for one in outcome.findings)
    return speed and {OURS, PEER} <= set(outcome.servers)


def speeds(outcome: Outcome) -> dict[str, Spread]:
    """Each server's requests a second in multiples of the peer's in the same round; ours first."""
    names = sorted(outcome.servers, key=lambda name: name != OURS)
    return {
        name: Spread.of(
            ratio(each[name].per_second, each[PEER].per_second) for each in outcome.rounds
        )
        for name in names
    }


def _frame(record: Record, scale: _Scale, bottom: float) -> list[str]:
    height = bottom + _BOTTOM
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height}" role="img">',
        f"<title>{_UNIT}, {escape(record.date)}</title>",
        f"<style>{_STYLE}</style>",
    ]
    lines.append(f'<text x="{LEFT - 24}" y="{bottom + 8}" text-anchor="end">{_UNIT}</text>')
    x = float(LEFT)
    for name, colour in COLOURS.items():
        lines.append(f'<rect x="{x}" y="14" width="11" height="11" fill="{colour}"/>')
        lines.append(f'<text x="{x + 16}" y="24">{escape(name)}</text>')
        x += 110
    step = 0.5 if scale.largest <= 3 else 1.0
    for count in range(int(scale.largest / step) + 1):
        at, kind = scale.x(count * step), "axis" if count in {0, 1 / step} else "grid"
        lines.append(
            f'<line class="{kind}" x1="{at}" x2="{at}" y1="{_TOP - 12}" y2="{bottom - _GAP + 4}"/>'
        )
        lines.append(
            f'<text x="{at}" y="{bottom + 8}" text-anchor="middle">{count * step:g}</text>'
        )
    return lines


def _title(outcome: Outcome) -> str:
    return outcome.title.partition(";")[0]


def _group(title: str, each: dict[str, Spread], y: float, scale: _Scale) -> list[str]:
    middle = y + len(each) * _BAR / 2 + 4
    lines = [f'<text x="{LEFT - 10}" y="{middle}" text-anchor="end">{escape(title)}</text>']
    for name, found in each.items():
        width = round(scale.x(found.median) - LEFT, 1)
        colour, center = COLOURS.get(name, "#868e96"), y + _BAR / 2
        lines.append(
            f'<rect x="{LEFT}" y="{y + 1}" width="{width}" height="{_BAR - 2}" fill="{colour}"/>'
        )
        low, high = scale.x(found.low), scale.x(found.high)
        if high > low:
            lines.append(
                f'<line class="whisker" x1="{low}" x2="{high}" y1="{center}" y2="{center}"/>'
            )
        if name == OURS:
            number = f"{found.median:.2f}"
            lines.append(f'<text x="{max(high, scale.x(1)) + 6}" y="{center + 4}">{number}</text>')
        y += _BAR
    return lines
