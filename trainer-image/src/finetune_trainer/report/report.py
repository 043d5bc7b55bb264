"""The report of a run: a single, self-contained HTML file. Pure.

Text from datasets and models is untrusted and escaped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from types import MappingProxyType

from jinja2 import Environment, StrictUndefined

from finetune_api.finetunejob import RewardCalibration
from finetune_trainer.report.charts import HEIGHT, LEFT, RIGHT, WIDTH, Chart, line_chart

REPORT_NAME = "report.html"
_TEMPLATE = "report.html.jinja"
# Title of a chart -> name of a line -> what the Trainer's log calls it.
_LOSS: Mapping[str, Mapping[str, str]] = {"Loss": {"training": "loss", "validation": "eval_loss"}}
_CHARTS: Mapping[str, Mapping[str, str]] = {
    "Accuracy of tokens": {"training": "mean_token_accuracy", "validation": "eval_mean_token_accuracy"},
    "Learning rate": {"learning rate": "learning_rate"},
    "Gradient norm": {"gradient norm": "grad_norm"},
}


@dataclass(frozen=True)
class Sample:
    """A prompt, its reference, and the model's answers before and after training."""

    prompt: str
    reference: str
    """Empty where the data gives no answers."""
    before: str
    after: str


@dataclass(frozen=True)
class Completion:
    """What the model answered in an evaluation of the training, and how that was graded."""

    step: int
    number: int
    """In the evaluation, from 1."""
    prompt: str
    output: str
    scores: Mapping[str, float | str]
    """The reward, and each grader's score or error."""


@dataclass(frozen=True)
class Samples:
    """Samples, and a sentence that describes them or says why there are none."""

    items: tuple[Sample, ...] = ()
    note: str = ""


@dataclass(frozen=True)
class Summary:
    """The head of the report."""

    headlines: tuple[str, ...] = ()
    """Sentences: what the training has brought."""
    facts: Mapping[str, object] = field(default_factory=dict)
    """Name -> value: how long it took, what it cost, where the model is."""
    loading: str = ""
    """Code that loads the model."""


def report_html(
    title: str,
    tables: Mapping[str, Mapping[str, object]],
    log: Sequence[Mapping[str, float]],
    samples: Samples,
    summary: Summary = Summary(),
    metrics: Mapping[str, str] = MappingProxyType({}),
    completions: Sequence[Completion] = (),
    calibration: RewardCalibration | None = None,
) -> str:
    """`tables`: heading -> name -> value. `log`: the Trainer's, an entry for each step with `step` and metrics.

    `metrics`: the method's (Method.metrics), each a chart. `completions`: those recorded at evaluations. `calibration`:
    the rewards of the model before its training.
    """
    charts = {**_charts_of(metrics), **_LOSS, **_CHARTS}
    # The loss of a method with rewards says nothing of how it goes.
    head = {name: lines for name, lines in charts.items() if lines.get("training") == "reward_mean"} or _LOSS
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(files("finetune_trainer.report").joinpath(_TEMPLATE).read_text(encoding="utf-8"))
    return template.render(
        title=title,
        summary=summary,
        tables={heading: {name: readable(value) for name, value in facts.items()} for heading, facts in tables.items()},
        head=_charts(head, log),
        charts=_charts({name: lines for name, lines in charts.items() if name not in head}, log),
        samples=samples,
        completions=[(one, {name: readable(score) for name, score in one.scores.items()}) for one in completions],
        calibration=calibration,
        bars=[] if calibration is None else _bars(calibration.histogram),
        width=WIDTH,
        height=HEIGHT,
        left=LEFT,
        right=WIDTH - RIGHT,
    )


def readable(value: object) -> object:
    """A number rounded for reading; any other value unchanged."""
    if not isinstance(value, float):
        return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else value
    return f"{value:,.0f}" if value.is_integer() and abs(value) < 1e15 else f"{value:.4g}"


def _bars(histogram: Sequence[int]) -> list[tuple[str, int, float]]:
    """Each range of rewards with its number of answers, and the length of its bar in percent."""
    size, most = len(histogram), max(histogram, default=0)
    return [
        (f"{at / size:g} to {(at + 1) / size:g}", count, 100 * count / max(1, most))
        for at, count in enumerate(histogram)
    ]


def _charts_of(metrics: Mapping[str, str]) -> dict[str, Mapping[str, str]]:
    titles = {name: name.replace("_", " ").capitalize() for name in metrics}
    return {titles[name]: {"training": key, "validation": f"eval_{key}"} for name, key in metrics.items()}


def _charts(charts: Mapping[str, Mapping[str, str]], log: Sequence[Mapping[str, float]]) -> list[Chart]:
    drawn = (
        line_chart(
            title,
            {name: [(entry["step"], entry[key]) for entry in log if key in entry] for name, key in lines.items()},
        )
        for title, lines in charts.items()
    )
    return [chart for chart in drawn if chart is not None]
