"""Line charts as SVG, for a report that needs nothing but a browser. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 720, 260
LEFT, RIGHT, TOP, BOTTOM = 64, 12, 12, 28
MOST_POINTS = 600
TICKS = 5

Point = tuple[float, float]


@dataclass(frozen=True)
class Tick:
    """A tick of an axis: its position in pixels, and its label."""

    position: float
    label: str


@dataclass(frozen=True)
class Line:
    """A series as the `points` of an SVG polyline, with its newest value."""

    name: str
    points: str
    last: str


@dataclass(frozen=True)
class Chart:
    """Everything that an SVG of WIDTH x HEIGHT needs."""

    title: str
    lines: tuple[Line, ...]
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]


def line_chart(title: str, series: Mapping[str, Sequence[Point]]) -> Chart | None:
    """A chart of the series that have points; None if none has."""
    drawn = {name: _thinned([point for point in points if math.isfinite(point[1])]) for name, points in series.items()}
    drawn = {name: points for name, points in drawn.items() if points}
    if not drawn:
        return None
    every = [point for points in drawn.values() for point in points]
    x_range = _range([x for x, _ in every])
    y_range = _range([y for _, y in every])

    def x_pixel(x: float) -> float:
        return _pixel(x, x_range, LEFT, WIDTH - RIGHT)

    def y_pixel(y: float) -> float:
        return _pixel(y, y_range, HEIGHT - BOTTOM, TOP)

    return Chart(
        title=title,
        lines=tuple(
            Line(name, " ".join(f"{x_pixel(x):.1f},{y_pixel(y):.1f}" for x, y in points), f"{points[-1][1]:.4g}")
            for name, points in drawn.items()
        ),
        x_ticks=tuple(Tick(x_pixel(x), f"{x:g}") for x in _ticks(*x_range)),
        y_ticks=tuple(Tick(y_pixel(y), f"{y:.4g}") for y in _ticks(*y_range)),
    )


def _thinned(points: Sequence[Point]) -> list[Point]:
    """At most MOST_POINTS of the points, always including the last one."""
    every = math.ceil(len(points) / MOST_POINTS) if points else 1
    kept = list(points[::every])
    if points and kept[-1] != points[-1]:
        kept.append(points[-1])
    return kept


def _range(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _ticks(low: float, high: float) -> list[float]:
    """Round numbers between the two, at a distance of 1, 2 or 5 times a power of ten."""
    rough = (high - low) / TICKS
    power = 10 ** math.floor(math.log10(rough))
    apart = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough)
    first = math.ceil(low / apart)
    return [number * apart for number in range(first, math.floor(high / apart) + 1)]


def _pixel(value: float, span: tuple[float, float], start: float, end: float) -> float:
    return start + (value - span[0]) / (span[1] - span[0]) * (end - start)
