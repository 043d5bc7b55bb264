"""The report of a run: one HTML file that needs nothing else. Pure.

What comes from the dataset and from the models is escaped: it is nobody's markup.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files

from jinja2 import Environment, StrictUndefined

from finetune_trainer.report.charts import HEIGHT, LEFT, RIGHT, WIDTH, Chart, line_chart

REPORT_NAME = "report.html"
_TEMPLATE = "report.html.jinja"
# Title of a chart -> name of a line -> what the Trainer's log calls it.
_LOSS: Mapping[str, Mapping[str, str]] = {"Loss": {"training": "loss", "validation": "eval_loss"}}
_CHARTS: Mapping[str, Mapping[str, str]] = {
    "Accuracy of tokens": {"training": "mean_token_accuracy", "validation": "eval_mean_token_accuracy"},
    "Reward accuracy": {"training": "rewards/accuracies", "validation": "eval_rewards/accuracies"},
    "Reward margin": {"training": "rewards/margins", "validation": "eval_rewards/margins"},
    "Learning rate": {"learning rate": "learning_rate"},
    "Gradient norm": {"gradient norm": "grad_norm"},
}


@dataclass(frozen=True)
class Sample:
    """A prompt, the answer that is wanted, and what the model says before and after its training."""

    prompt: str
    reference: str
    before: str
    after: str


@dataclass(frozen=True)
class Samples:
    """Samples, and a sentence about them: what they are, or why there are none."""

    items: tuple[Sample, ...] = ()
    note: str = ""


@dataclass(frozen=True)
class Summary:
    """What a person looks for first."""

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
) -> str:
    """`tables`: heading -> name -> value. `log`: the Trainer's, an entry for each step with `step` and metrics."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(files("finetune_trainer.report").joinpath(_TEMPLATE).read_text(encoding="utf-8"))
    return template.render(
        title=title,
        summary=summary,
        tables={heading: {name: readable(value) for name, value in facts.items()} for heading, facts in tables.items()},
        loss=_charts(_LOSS, log),
        charts=_charts(_CHARTS, log),
        samples=samples,
        width=WIDTH,
        height=HEIGHT,
        left=LEFT,
        right=WIDTH - RIGHT,
    )


def readable(value: object) -> object:
    """A number with the digits that a person reads; anything else as it is."""
    if not isinstance(value, float):
        return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else value
    return f"{value:,.0f}" if value.is_integer() and abs(value) < 1e15 else f"{value:.4g}"


def _charts(charts: Mapping[str, Mapping[str, str]], log: Sequence[Mapping[str, float]]) -> list[Chart]:
    drawn = (
        line_chart(
            title,
            {name: [(entry["step"], entry[key]) for entry in log if key in entry] for name, key in lines.items()},
        )
        for title, lines in charts.items()
    )
    return [chart for chart in drawn if chart is not None]
