"""A load test as a picture: what was taken over time, how long it took over time, how long it took in all. One SVG,
complete in itself, for light and dark pages. Pure."""

from collections.abc import Sequence
from html import escape

from campaigns.loadtest.loading import Result
from campaigns.loadtest.measures import percentile, percentiles_in_slices
from campaigns.loadtest.report import in_words, over_time, slices_of
from delivery.simulation import plot
from delivery.simulation.plot import Series

SLICES = 150
SHARES = (("p50", 0.5), ("p95", 0.95), ("p99", 0.99))
STEPS = 100  # of the curve of all percentiles
PANEL = plot.HEIGHT + plot.LINE
HEAD = 34
# Rules of a style sheet go before the attributes that the plotter writes.
DARK = """\
<style>
@media (prefers-color-scheme: dark) {
  rect[fill="#ffffff"] { fill: #111827 }
  text { fill: #d1d5db }
  line { stroke: #374151 }
}
</style>"""


def svg(result: Result) -> str:
    """The picture of a result in which something was taken; of one without, its title."""
    title = f"Load test: {in_words(result.plan, result.url)}"
    panels = _panels(result) if any(sample.good for sample in result.stormed.samples) else []
    height = HEAD + len(panels) * PANEL
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {plot.WIDTH} {height}" font-family="sans-serif"'
            ' font-size="12" role="img">',
            f"<title>{escape(title)}</title>",
            DARK,
            f'<rect width="{plot.WIDTH}" height="{height}" fill="#ffffff"/>',
            f'<text x="{plot.LEFT}" y="22" fill="#374151">{escape(title)}</text>',
            *(_placed(panel, number) for number, panel in enumerate(panels)),
            "</svg>",
            "",
        ]
    )


def _panels(result: Result) -> list[str]:
    rates, length = over_time(result, SLICES)
    return [
        plot.svg(rates, length, "A second"),
        _latencies(result, "Time until the answer", ((s.ended, s.seconds) for s in result.stormed.samples if s.good)),
        *([_latencies(result, "Time until the callback", result.returned.back)] if _is_back(result) else []),
        _distribution(result),
    ]


def _is_back(result: Result) -> bool:
    return bool(result.returned and result.returned.back)


def _latencies(result: Result, title: str, timed: object) -> str:
    """Percentiles of what ended in each slice of time."""
    length, count = slices_of(result, SLICES)
    found = list(timed)
    series = [Series(name, percentiles_in_slices(found, length, count, share)) for name, share in SHARES]
    return plot.svg(series, length, title, _shown)


def _distribution(result: Result) -> str:
    """Which share was quicker than what."""
    series = [Series("answer", _curve([s.seconds for s in result.stormed.samples if s.good]))]
    if _is_back(result):
        series.append(Series("callback", _curve([seconds for _, seconds in result.returned.back])))
    title = "All of them, from the quickest to the slowest"
    return plot.svg(series, 1 / STEPS, title, _shown, lambda share: f"{share:.0%}")


def _curve(seconds: Sequence[float]) -> tuple[float, ...]:
    ordered = sorted(seconds)
    return tuple(percentile(ordered, (step + 1) / STEPS) for step in range(STEPS))


def _shown(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1000:.3g} ms"


def _placed(panel: str, number: int) -> str:
    """A picture within the picture, below those before it."""
    place = f'<svg y="{HEAD + number * PANEL}" width="{plot.WIDTH}" height="{PANEL}" '
    return panel.replace("<svg ", place, 1)
