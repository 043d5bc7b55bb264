"""Curves of a run: plain lists, or a DataFrame where pandas is installed."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from finetune_client.errors import MissingPackageError, StorageError
from finetune_view.object_view import ObjectView

Value = float | None


@dataclass(frozen=True)
class Metrics:
    """One list for each column, all of the same length; None where a step has no value."""

    columns: Mapping[str, list[Value]]

    def __len__(self) -> int:
        return len(self.steps)

    def __getitem__(self, column: str) -> list[Value]:
        return self.columns[column]

    def __iter__(self) -> Iterator[str]:
        return iter(self.columns)

    @property
    def steps(self) -> list[int]:
        """The optimizer steps, counting from 1."""
        return [int(step) for step in self.columns.get("step", []) if step is not None]

    def curve(self, column: str = "train_loss") -> list[tuple[int, float]]:
        """Step and value where there is one."""
        return [
            (step, value)
            for step, value in zip(self.steps, self.columns.get(column, []), strict=False)
            if value is not None
        ]

    def to_pandas(self) -> Any:
        """A DataFrame with the step as its index. Raises MissingPackageError."""
        try:
            import pandas
        except ImportError:
            raise MissingPackageError(
                "pandas is not installed: `pip install pandas`, or take the lists (metrics['train_loss'])."
            ) from None
        return pandas.DataFrame(dict(self.columns)).astype({"step": "int64"}).set_index("step")

    def _repr_html_(self) -> str:
        head = "".join(f"<th>{_escaped(name)}</th>" for name in self.columns)
        shown = list(zip(*self.columns.values(), strict=True))
        rows = shown if len(shown) <= 20 else [*shown[:10], *shown[-10:]]
        body = "".join(f"<tr>{''.join(f'<td>{_cell(value)}</td>' for value in row)}</tr>" for row in rows)
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table><p>{len(shown)} steps</p>"


def _cell(value: Value) -> str:
    return "" if value is None else f"{value:.6g}"


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def parse_results(text: str, name: str) -> Metrics:
    """The columns of results.csv. Raises StorageError for what is none."""
    try:
        header, *rows = list(csv.reader(io.StringIO(text, newline=""))) or [[]]
    except csv.Error as error:
        raise StorageError(f"{name} is not a CSV file: {error}.") from None
    if "step" not in header:
        raise StorageError(f"{name} has no column `step`: is it the results.csv of a run?")
    columns: dict[str, list[Value]] = {column: [] for column in header}
    for row in rows:
        cells = dict(zip(header, row, strict=False))
        if len(row) == len(header) and _value(cells["step"]) is not None:
            for column, cell in cells.items():
                columns[column].append(_value(cell))
    return Metrics(columns)


def _value(text: str) -> Value:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


_OF_PROGRESS = {"train_loss": "loss", "valid_loss": "evalLoss", "learning_rate": "learningRate", "epoch": "epoch"}


@dataclass
class SeenProgress:
    """What was seen of status.progress: one point for each step that was looked at."""

    points: dict[int, dict[str, Value]] = field(default_factory=dict)
    _run: str = ""

    def take(self, view: ObjectView) -> None:
        """A state of the object. An attempt that resumes goes back to the step of its checkpoint."""
        progress = view.status.at("progress")
        step, run = progress.whole("step"), view.status.text("runId")
        if run != self._run:
            self._run = run
            self.points.clear()
        if step is None:
            return
        if view.outcome == "Succeeded" and self.points:
            return  # The step is that of the result, which may be an earlier one.
        for later in [one for one in self.points if one > step]:
            del self.points[later]
        self.points[step] = {column: progress.number(path) for column, path in _OF_PROGRESS.items()}

    def metrics(self) -> Metrics:
        """The points as columns."""
        return _metrics(sorted(self.points.items()))


def _metrics(points: Iterable[tuple[int, Mapping[str, Value]]]) -> Metrics:
    known = list(points)
    columns: dict[str, list[Value]] = {"step": [float(step) for step, _ in known]}
    return Metrics(columns | {name: [point.get(name) for _, point in known] for name in _OF_PROGRESS})
