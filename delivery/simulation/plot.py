"""Throughput over time as a picture: lines of blocks for a terminal, an SVG for a page. Pure, and free of any date or
chance: the same result, the same picture."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape

BLOCKS = " ▁▂▃▄▅▆▇█"
NAME = 24  # characters of a name, before a line of blocks
COLOURS = ("#2563eb", "#d97706", "#059669", "#dc2626", "#7c3aed", "#0891b2", "#be185d", "#4d7c0f")

WIDTH, HEIGHT = 900, 420
LEFT, RIGHT, TOP, BOTTOM = 70, 20, 40, 45
LINE = 18  # of the legend


@dataclass(frozen=True, slots=True)
class Series:
    """Mails per second of one vendor, in slices of equal length."""

    name: str
    values: tuple[float, ...]


def sliced(per_second: Mapping[str, Mapping[int, int]], seconds: float, slices: int) -> tuple[list[Series], float]:
    """Counts by second, as averages over at most so many slices of whole seconds; and the length of a slice. What comes
    after `seconds` is left out."""
    whole = max(1, math.ceil(seconds))
    length = -(-whole // slices)
    count = -(-whole // length)
    series = []
    for name, counts in per_second.items():
        sums = [0] * count
        for second, mails in counts.items():
            if second < count * length:
                sums[second // length] += mails
        series.append(Series(name, tuple(total / length for total in sums)))
    return series, float(length)


def lines(series: Sequence[Series], length: float) -> list[str]:
    """One line of blocks for each vendor, all on one scale, and a line with the time below."""
    most = max((value for each in series for value in each.values), default=0) or 1
    names = [each.name if len(each.name) <= NAME else each.name[: NAME - 1] + "…" for each in series]
    width = max(map(len, names))
    drawn = []
    for name, each in zip(names, series, strict=True):
        blocks = "".join(_block(value / most) for value in each.values)
        drawn.append(f"{name:<{width}} {blocks} up to {shown_rate(max(each.values))}")
    slices = len(series[0].values)
    end = shown_time(slices * length)
    return [*drawn, f"{'':<{width}} 0{end:>{max(len(end) + 1, slices - 1)}}"]


def _block(share: float) -> str:
    """What is more than nothing is seen."""
    step = round(share * (len(BLOCKS) - 1))
    return BLOCKS[max(step, 1) if share > 0 else 0]


def shown_rate(rate: float) -> str:
    """`1,250/s`, `3.8/s`, `0.25/s`: what is more than nothing does not look like nothing."""
    return f"{rate:,.0f}/s" if rate == 0 or rate >= 9.5 else f"{rate:.2g}/s"


def shown_time(seconds: float) -> str:
    """`85.3 s`, `12 min 5 s`, `2 h 10 min`."""
    if seconds < 120:
        return f"{seconds:g} s" if seconds == int(seconds) else f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 120:
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if minutes else f"{hours} h"


def svg(
    series: Sequence[Series],
    length: float,
    title: str,
    shown: Callable[[float], str] = shown_rate,
    shown_along: Callable[[float], str] = lambda seconds: shown_time(round(seconds, 1)),
) -> str:
    """A line for each vendor over time, with axes and a legend, complete in itself. `shown`: how values are written,
    and `shown_along` what stands below them."""
    most = max((value for each in series for value in each.values), default=0) or 1
    slices = len(series[0].values)
    legend, height = _legend(series)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif"'
        ' font-size="12" role="img">',
        f"<title>{escape(title)}</title>",
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
        f'<text x="{LEFT}" y="20" font-size="14" fill="#111827">{escape(title)}</text>',
        *_grid(most, slices * length, shown, shown_along),
    ]
    for number, each in enumerate(series):
        colour = COLOURS[number % len(COLOURS)]
        parts.append(f'<polyline fill="none" stroke="{colour}" stroke-width="1.5" points="{_points(each, most)}"/>')
    return "\n".join([*parts, *legend, "</svg>", ""])


def _legend(series: Sequence[Series]) -> tuple[list[str], int]:
    """The names below the picture, as many in a line as there is room for; and the height of all."""
    column = 40 + 8 * max(len(each.name) for each in series)
    in_line = max(1, (WIDTH - LEFT - RIGHT) // column)
    parts = []
    for number, each in enumerate(series):
        x, y = LEFT + column * (number % in_line), HEIGHT + LINE * (number // in_line)
        colour = COLOURS[number % len(COLOURS)]
        parts.append(f'<rect x="{x}" y="{y - 6}" width="12" height="4" fill="{colour}"/>')
        parts.append(f'<text x="{x + 18}" y="{y}" fill="#374151">{escape(each.name)}</text>')
    return parts, HEIGHT + LINE * -(-len(series) // in_line)


def html(picture: str, title: str) -> str:
    """The picture as a page of its own."""
    head = f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title></head>'
    return f"{head}\n<body>\n{picture}</body></html>\n"


def _grid(most: float, along: float, shown: Callable[[float], str], shown_along: Callable[[float], str]) -> list[str]:
    parts = []
    for step in range(5):
        rate = most * step / 4
        y = _y(rate, most)
        parts.append(f'<line x1="{LEFT}" y1="{y:.1f}" x2="{WIDTH - RIGHT}" y2="{y:.1f}" stroke="#e5e7eb"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end" fill="#6b7280">{shown(rate)}</text>')
        x = LEFT + (WIDTH - LEFT - RIGHT) * step / 4
        parts.append(
            f'<text x="{x:.1f}" y="{HEIGHT - BOTTOM + 20}" text-anchor="middle" fill="#6b7280">'
            f"{shown_along(along * step / 4)}</text>"
        )
    return parts


def _points(series: Series, most: float) -> str:
    step = (WIDTH - LEFT - RIGHT) / len(series.values)
    return " ".join(
        f"{LEFT + (number + 0.5) * step:.1f},{_y(value, most):.1f}" for number, value in enumerate(series.values)
    )


def _y(value: float, most: float) -> float:
    return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * value / most
