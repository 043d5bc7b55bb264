"""How numbers, times and series are shown."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from datetime import datetime

BAR_WIDTH = 24
_BLOCKS = "▁▂▃▄▅▆▇█"


def duration(seconds: float) -> str:
    """At most two units, as kubectl shows ages: 90s, 7m5s, 42m, 3h20m, 5d."""
    whole = max(0, int(seconds))
    if whole < 120:
        return f"{whole}s"
    for larger, smaller, size, unit, below in (("m", "s", 60, 1, 600), ("h", "m", 3600, 60, 8 * 3600)):
        most = 10_800 if larger == "m" else 48 * 3600
        if whole < most:
            rest = whole % size // unit
            return f"{whole // size}{larger}{rest}{smaller}" if rest and whole < below else f"{whole // size}{larger}"
    return f"{whole // 86_400}d"


def age(moment: datetime | None, now: datetime) -> str:
    """How long ago; "" if that is not known."""
    return "" if moment is None else duration((now - moment).total_seconds())


def figure(number: float | None, digits: int = 4) -> str:
    """A measured number in a few significant digits; "" if there is none."""
    return "" if number is None else f"{number:.{digits}g}"


def sparkline(values: Sequence[float], width: int) -> str:
    """The course of a series in `width` characters: each is the mean of its share of the values."""
    if not values or width < 1:
        return ""
    count = min(width, len(values))
    edges = [round(index * len(values) / count) for index in range(count + 1)]
    shares = [values[begin:end] for begin, end in itertools.pairwise(edges)]
    means = [sum(share) / len(share) for share in shares]
    low, high = min(means), max(means)
    if high == low:
        return _BLOCKS[0] * count
    return "".join(_BLOCKS[min(7, int(8 * (mean - low) / (high - low)))] for mean in means)


def counted(number: int, noun: str) -> str:
    """`1 disruption`, `2 disruptions`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def bar(percent: float, width: int) -> str:
    """A progress bar."""
    full = round(width * min(100.0, max(0.0, percent)) / 100)
    return "█" * full + "░" * (width - full)


def size(count: float | None) -> str:
    """Bytes in binary units."""
    if count is None:
        return ""
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if count < 1024 or unit == "TiB":
            return f"{count:.0f} {unit}" if unit == "B" or count >= 100 else f"{count:.1f} {unit}"
        count /= 1024
    return ""
