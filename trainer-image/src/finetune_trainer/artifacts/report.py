"""The report of a run: one HTML file that needs nothing else. Pure.

What comes from the dataset and from the models is escaped: it is nobody's markup.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files

from jinja2 import Environment, StrictUndefined

from finetune_trainer.artifacts.charts import HEIGHT, LEFT, RIGHT, WIDTH, Chart, line_chart

REPORT_NAME = "report.html"
_TEMPLATE = "report.html.jinja"
# Title of a chart -> name of a line -> what the Trainer's log calls it.
_CHARTS: Mapping[str, Mapping[str, str]] = {
    "Loss": {"training": "loss", "validation": "eval_loss"},
    "Accuracy of tokens": {"training": "mean_token_accuracy", "validation": "eval_mean_token_accuracy"},
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


def report_html(
    title: str,
    tables: Mapping[str, Mapping[str, object]],
    log: Sequence[Mapping[str, float]],
    samples: Samples,
) -> str:
    """`tables`: heading -> name -> value. `log`: the Trainer's, an entry for each step with `step` and metrics."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(
        files("finetune_trainer.artifacts").joinpath(_TEMPLATE).read_text(encoding="utf-8")
    )
    return template.render(
        title=title,
        tables=tables,
        charts=_charts(log),
        samples=samples,
        width=WIDTH,
        height=HEIGHT,
        left=LEFT,
        right=WIDTH - RIGHT,
    )


def _charts(log: Sequence[Mapping[str, float]]) -> list[Chart]:
    drawn = (
        line_chart(
            title,
            {name: [(entry["step"], entry[key]) for entry in log if key in entry] for name, key in lines.items()},
        )
        for title, lines in _CHARTS.items()
    )
    return [chart for chart in drawn if chart is not None]
