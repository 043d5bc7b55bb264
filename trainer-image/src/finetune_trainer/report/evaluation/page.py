"""The report of an evaluation for people: a single, self-contained HTML file. Pure.

Text from datasets, models and graders is untrusted: it is escaped, cut, and shown by a browser that may load and run
nothing (Content-Security-Policy).
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from finetune_api.evaluation import BASELINE, OutputsStatus, Score
from finetune_trainer.report.evaluation.safety_matrix import AttackMatrix

PAGE_NAME = "report.html"
LONGEST_TEXT = 2000
WIDTH, LEFT, RIGHT, ROW = 720, 210, 20, 30
_FOLDER = "finetune_trainer.report.evaluation"


@dataclass(frozen=True)
class Answer:
    """What one model answered to an example, and what the first grader says of it."""

    model: str
    text: str
    score: float | None = None
    verdict: str = "Not graded"


@dataclass(frozen=True)
class ComparedExample:
    """An example of the dataset with all answers."""

    line: int
    prompt: str
    reference: str
    answers: Sequence[Answer]


@dataclass(frozen=True)
class SliceScores:
    """The scores of one slice."""

    by: str
    value: str
    examples: int
    scores: Sequence[Score]


@dataclass(frozen=True)
class EvaluationPage:
    """What the page says."""

    title: str
    dataset: str
    examples: int
    graders: Sequence[str]
    """The first decides."""
    scores: Sequence[Score]
    slices: Sequence[SliceScores]
    samples: Mapping[str, Sequence[ComparedExample]]
    """By heading."""
    outputs: Sequence[OutputsStatus]
    warnings: Sequence[str]
    attacks: Sequence[AttackMatrix] = ()
    """Of each model; none without safety."""
    checkpoints: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """By candidate, the names of its checkpoints; only of those with several."""
    benchmarks: Mapping[str, str] = field(default_factory=dict)
    """lm-eval's task by the benchmark's name; the scores are among the others."""


@dataclass(frozen=True)
class _Bar:
    """A score with its interval, in pixels."""

    model: str
    text: str
    y: int
    low: float
    mean: float
    high: float


def page_html(page: EvaluationPage) -> str:
    """The verdict, scores with intervals, slices, examples side by side, and what the outputs took."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters.update(percent=_percent, gain=_gain, cut=_cut, number=_number)
    style = files(_FOLDER).joinpath("page.css").read_text(encoding="utf-8")
    measures = [*page.graders, *page.benchmarks]
    template = environment.from_string(files(_FOLDER).joinpath("page.html.jinja").read_text(encoding="utf-8"))
    return template.render(
        page=page,
        verdicts=verdicts(page),
        best=best_checkpoints(page),
        charts={name: _bars([one for one in page.scores if one.grader == name]) for name in measures},
        style=Markup(style),  # noqa: S704  our own file
        style_digest=base64.b64encode(hashlib.sha256(style.encode()).digest()).decode(),
        width=WIDTH,
        left=LEFT,
        right=WIDTH - RIGHT,
        row=ROW,
    )


def verdicts(page: EvaluationPage) -> list[tuple[str, str]]:
    """For each candidate a word and a sentence, by the first grader: what the examples show, and what they don't."""
    deciding = [score for score in page.scores if score.grader == page.graders[0]]
    return [_verdict(score) for score in deciding if score.candidate != BASELINE]


def best_checkpoints(page: EvaluationPage) -> list[str]:
    """For each candidate with several checkpoints, the highest by the first grader, and its ties."""
    deciding = [score for score in page.scores if score.grader == page.graders[0]]
    return [
        _best_checkpoint(candidate, [score for score in deciding if score.candidate in names])
        for candidate, names in page.checkpoints.items()
    ]


def _best_checkpoint(candidate: str, scores: Sequence[Score]) -> str:
    best = max(scores, key=lambda one: one.score)  # of equal ones the earlier, as in status.bestCheckpoints
    tied = [one.candidate for one in scores if one is not best and one.low <= best.high and best.low <= one.high]
    text = f"{best.candidate} scores highest of the checkpoints of {candidate} by {best.grader}: "
    text += f"{_percent(best.score)} ({_percent(best.low)} to {_percent(best.high)})."
    if tied:
        text += f" Intervals overlap with it, so these may be as good: {', '.join(tied)}."
    return f"{text} It was chosen on these examples, so its score is optimistic."


def _verdict(score: Score) -> tuple[str, str]:
    measured = f"{score.candidate} scores {_percent(score.score)} by {score.grader}"
    if score.delta is None or score.delta_low is None or score.delta_high is None:
        return "Measured", f"{measured} ({_percent(score.low)} to {_percent(score.high)}). There is no baseline for it."
    gain = f"{_gain(score.delta)} against the baseline ({_gain(score.delta_low)} to {_gain(score.delta_high)})"
    if score.delta_low > 0:
        return "Better", f"{measured}, {gain}."
    if score.delta_high < 0:
        return "Worse", f"{measured}, {gain}."
    return "Can't tell", f"{measured}, {gain}: {score.examples:,} examples do not show whether it is better."


def _bars(scores: Sequence[Score]) -> list[_Bar]:
    return [
        _Bar(
            model=score.candidate,
            text=f"{_percent(score.score)} ({_percent(score.low)} to {_percent(score.high)})",
            y=ROW * at + ROW // 2,
            low=_pixel(score.low),
            mean=_pixel(score.score),
            high=_pixel(score.high),
        )
        for at, score in enumerate(scores)
    ]


def _pixel(score: float) -> float:
    return round(LEFT + score * (WIDTH - RIGHT - LEFT), 1)


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f} %"


def _gain(points: float | None) -> str:
    """A difference of two scores, in percentage points."""
    return "-" if points is None else f"{100 * points:+.1f} points"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:,.4g}" if isinstance(value, float) else f"{value:,}"


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST_TEXT else f"{text[:LONGEST_TEXT]} ... ({len(text):,} characters)"
