"""Charts as SVG elements, for a page that needs nothing but a browser. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from xml.etree.ElementTree import Element, SubElement

from kubectl_finetune.display.numbers import figure

WIDTH, HEIGHT, ROW = 720, 300, 24
LEFT, RIGHT, TOP, BOTTOM = 170, 40, 30, 36
_LONGEST_LABEL = 24
_TICKS = 4


@dataclass(frozen=True)
class Interval:
    """A measured value with the bounds of its interval, which may be unknown."""

    name: str
    value: float
    low: float | None = None
    high: float | None = None
    is_best: bool = False


@dataclass(frozen=True)
class Axis:
    """One of parallel axes: numbers, on a logarithmic scale if that is how they were searched, or names."""

    name: str
    values: Sequence[float | str]
    """One of each line."""
    is_log: bool = False


@dataclass(frozen=True)
class _Scale:
    low: float
    high: float
    is_log: bool = False

    def at(self, value: float, start: float, end: float) -> float:
        """The pixel of a value."""
        low, high, value = (self._place(one) for one in (self.low, self.high, value))
        return (start + end) / 2 if high <= low else start + (value - low) / (high - low) * (end - start)

    def _place(self, value: float) -> float:
        return math.log(value) if self.is_log and value > 0 else value


def intervals(title: str, rows: Sequence[Interval]) -> Element:
    """A row for each value, with its interval."""
    scale = _scale([number for row in rows for number in (row.value, row.low, row.high) if number is not None])
    svg = _svg(title, ROW * len(rows) + BOTTOM)
    right = WIDTH - RIGHT
    for tick in _ticks(scale):
        x = scale.at(tick, LEFT, right)
        _line(svg, x, 0, x, ROW * len(rows), "grid")
        _text(svg, x, ROW * len(rows) + 16, figure(tick, 3), "middle")
    for index, row in enumerate(rows):
        y = ROW * (index + 0.5)
        group = SubElement(svg, "g", {"class": "best" if row.is_best else "other"})
        SubElement(group, "title").text = f"{row.name}: {figure(row.value)}"
        _text(group, LEFT - 10, y + 4, row.name, "end")
        if row.low is not None and row.high is not None:
            _line(group, scale.at(row.low, LEFT, right), y, scale.at(row.high, LEFT, right), y, "interval")
        _circle(group, scale.at(row.value, LEFT, right), y)
    return svg


def parallel_coordinates(title: str, axes: Sequence[Axis], best: int) -> Element:
    """A line for each trial across the axes, of which the last is the score. `best`: the index of the best one."""
    svg = _svg(title, HEIGHT)
    left, right, top, bottom = 70.0, float(WIDTH - 70), TOP + 14.0, float(HEIGHT - BOTTOM)
    apart = (right - left) / max(1, len(axes) - 1)
    places = [[_height(axis, value, top, bottom) for value in axis.values] for axis in axes]
    lines = [[(left + apart * at, places[at][line]) for at in range(len(axes))] for line in range(len(axes[0].values))]
    for line, points in sorted(enumerate(lines), key=lambda one: one[0] == best):
        kind = "best" if line == best else "other"
        SubElement(svg, "polyline", {"class": kind, "points": " ".join(f"{x:.1f},{y:.1f}" for x, y in points)})
    for at, axis in enumerate(axes):
        x = left + apart * at
        _line(svg, x, top, x, bottom, "axis")
        _text(svg, x, TOP if at % 2 == 0 else TOP - 16, axis.name, "middle")
        for y, label in _labels(axis, top, bottom):
            _text(svg, x + 6, y + 4, label, "start")
    return svg


def curve(
    title: str, points: Sequence[tuple[float, Interval]], expected: Sequence[tuple[float, Interval]] = ()
) -> Element:
    """Values at several sizes, on a logarithmic axis, with the band of their intervals.

    `expected`: the last of them and one that was not measured, with a band and a dashed line of their own.
    """
    svg = _svg(title, HEIGHT)
    right, bottom = float(WIDTH - RIGHT), float(HEIGHT - BOTTOM)
    known = [*points, *expected]
    sizes = _Scale(min(size for size, _ in known), max(size for size, _ in known), is_log=True)
    values = _scale([number for _, one in known for number in (one.value, one.low, one.high) if number is not None])

    def place(size: float, value: float) -> tuple[float, float]:
        return sizes.at(size, LEFT, right), values.at(value, bottom, TOP)

    for tick in _ticks(values):
        y = values.at(tick, bottom, TOP)
        _line(svg, LEFT, y, right, y, "grid")
        _text(svg, LEFT - 8, y + 4, figure(tick, 3), "end")
    for found, kind in ((points, "best"), (expected, "expected")):
        banded = [(size, one.low, one.high) for size, one in found if one.low is not None and one.high is not None]
        edge = [place(size, low) for size, low, _ in banded] + [place(size, high) for size, _, high in reversed(banded)]
        if edge:
            SubElement(svg, "polygon", {"class": "band", "points": _joined(edge)})
        middle = [place(size, one.value) for size, one in found]
        if middle:
            SubElement(svg, "polyline", {"class": kind, "points": _joined(middle)})
        for (size, one), (x, y) in zip(found, middle, strict=True):
            group = SubElement(svg, "g", {"class": kind})
            SubElement(group, "title").text = f"{size:,.0f} examples: {figure(one.value)}"
            _circle(group, x, y)
            _text(svg, x, bottom + 18, f"{size:,.0f}", "middle")
    return svg


def _joined(places: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in places)


def shares(title: str, values: Mapping[str, float]) -> Element:
    """A bar for each share of a whole."""
    svg = _svg(title, ROW * len(values) + 8)
    for index, (name, share) in enumerate(values.items()):
        y = ROW * index
        _text(svg, LEFT + 40, y + 16, name, "end")
        width = f"{share * (WIDTH - LEFT - 140):.1f}"
        SubElement(svg, "rect", {"class": "bar", "x": f"{LEFT + 50}", "y": f"{y + 4}", "width": width, "height": "16"})
        _text(svg, LEFT + 56 + float(width), y + 16, f"{share:.0%}", "start")
    return svg


def _height(axis: Axis, value: float | str, top: float, bottom: float) -> float:
    numbers = [one for one in axis.values if isinstance(one, float)]
    if isinstance(value, float) and len(numbers) == len(axis.values):
        return _Scale(min(numbers), max(numbers), axis.is_log).at(value, bottom, top)
    names = _names(axis)
    return _Scale(0, len(names) - 1).at(names.index(str(value)), bottom, top)


def _labels(axis: Axis, top: float, bottom: float) -> list[tuple[float, str]]:
    numbers = [one for one in axis.values if isinstance(one, float)]
    if len(numbers) == len(axis.values):
        return [
            (_height(axis, one, top, bottom), figure(one, 3)) for one in dict.fromkeys((min(numbers), max(numbers)))
        ]
    return [(_height(axis, name, top, bottom), name) for name in _names(axis)]


def _names(axis: Axis) -> list[str]:
    return sorted({str(value) for value in axis.values})


def _scale(values: Sequence[float]) -> _Scale:
    low, high = min(values), max(values)
    margin = (high - low) * 0.05 or abs(high) * 0.05 or 1.0
    return _Scale(low - margin, high + margin)


def _ticks(scale: _Scale) -> list[float]:
    """Round numbers, at a distance of 1, 2 or 5 times a power of ten."""
    rough = (scale.high - scale.low) / _TICKS
    if not math.isfinite(rough) or rough <= 0:
        return []  # of numbers that no measurement has
    power = 10.0 ** math.floor(math.log10(rough))
    apart = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough)
    first, last = math.ceil(scale.low / apart), math.floor(scale.high / apart)
    return [number * apart for number in range(first, last + 1)]


def _svg(title: str, height: float) -> Element:
    return Element("svg", {"viewBox": f"0 0 {WIDTH} {height:g}", "role": "img", "aria-label": title})


def _line(to: Element, x1: float, y1: float, x2: float, y2: float, kind: str) -> None:
    places = {"x1": x1, "y1": y1, "x2": x2, "y2": y2}
    SubElement(to, "line", {"class": kind, **{name: f"{place:.1f}" for name, place in places.items()}})


def _circle(to: Element, x: float, y: float) -> None:
    SubElement(to, "circle", {"cx": f"{x:.1f}", "cy": f"{y:.1f}", "r": "4"})


def _text(to: Element, x: float, y: float, text: str, anchor: str) -> None:
    short = text if len(text) <= _LONGEST_LABEL else f"{text[: _LONGEST_LABEL - 1]}…"
    SubElement(to, "text", {"x": f"{x:.1f}", "y": f"{y:.1f}", "text-anchor": anchor}).text = short
