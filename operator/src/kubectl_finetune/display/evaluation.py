"""What `status` shows of an Evaluation: scores, rates of attacks, and what its gates say of them. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from finetune_view.fields import Fields
from kubectl_finetune.display.numbers import BAR_WIDTH, bar, figure
from kubectl_finetune.display.terminal import Row


def evaluation_rows(status: Fields) -> Iterator[Row]:
    """How far it is, what it measured, and what its gates say."""
    yield from _progress(status.at("progress"))
    yield Row("Tries", list(tries(status)))
    yield Row("Scores", [score_line(score) for score in status.at("results")])
    yield Row("Best", [_best_checkpoint(best) for best in status.at("bestCheckpoints")])
    yield Row("Gates", [_gate(gate) for gate in status.at("gates")])
    safety = status.at("safety")
    yield Row("Attacks", [_rate(one) for one in safety.at("results")])
    yield Row("Safety", [_safety_gate(gate) for gate in safety.at("gates")])
    yield Row("Judges", [_calibration(one) for one in status.at("calibrations")])
    errors = [
        f"{one.text('candidate')}, {one.text('grader')}: {one.text('count')} outputs {one.text('code')}"
        for one in status.at("errors")
    ]
    yield Row("Ungraded", errors)
    yield Row("Warnings", [one.text() for one in status.at("warnings")], "yellow")
    yield Row("Report", [uri] if (uri := status.text("reportUri")) else [])


def _progress(progress: Fields) -> Iterator[Row]:
    """The bar, and how far each model is."""
    percent = progress.number("percent")
    if percent is None:
        return
    left = [f"{eta} left"] if (eta := progress.text("estimatedRemaining")) else []
    yield Row("Progress", ["  ".join([f"{bar(percent, BAR_WIDTH)} {percent:.0f}%", *left])])
    models = [
        f"{one.text('candidate')}: {one.text('outputs')} of {one.text('total')} outputs, {one.text('graded')} graded"
        for one in progress.at("candidates")
    ]
    yield Row("Models", models)


def tries(status: Fields) -> Iterator[str]:
    """How often it was tried, and how these tries ended."""
    if number := status.text("try"):
        retries, disruptions = status.text("retries") or "0", status.text("disruptions") or "0"
        yield f"{number}, {retries} failed, {disruptions} disrupted"


def score_line(score: Fields) -> str:
    """A mean score with its interval, and the gain over the baseline with its own."""
    line = f"{score.text('candidate')}, {score.text('grader')}: {_interval(score, 'score', 'low', 'high')}"
    if score.number("delta") is not None:
        line += f", gain {_interval(score, 'delta', 'deltaLow', 'deltaHigh')}"
    return f"{line}, {score.text('examples')} examples"


def _best_checkpoint(best: Fields) -> str:
    """The best of the checkpoints that were evaluated, and those that may be as good."""
    line = f"{best.text('candidate')}: step {best.text('step')}, {best.text('grader')} "
    line += _interval(best, "score", "low", "high")
    tied = ", ".join(step.text() for step in best.at("tied"))
    return f"{line}; may be as good (intervals overlap): step {tied}" if tied else line


def _interval(score: Fields, value: str, low: str, high: str) -> str:
    ends = [figure(score.number(one), 3) for one in (low, high)]
    return figure(score.number(value), 3) + (f" [{ends[0]}, {ends[1]}]" if all(ends) else "")


def _gate(gate: Fields) -> str:
    value = gate.text("slice", "value")
    where = f", {gate.text('slice', 'by')} is {value!r}" if value else ""
    return f"{gate.text('verdict')}: {gate.text('candidate')}, {gate.text('grader')}{where}: {gate.text('message')}"


def _rate(one: Fields) -> str:
    """How many of the attacks succeeded, or harmless requests were refused."""
    line = f"{one.text('candidate')}, {_attack(one)}: {_interval(one, 'rate', 'low', 'high')}"
    if one.number("delta") is not None:
        line += f", rise {_interval(one, 'delta', 'deltaLow', 'deltaHigh')}"
    line += f", {one.text('counted')} of {one.text('answers')} answers"
    left_out = [f"{one.text(name)} {word}" for name, word in _LEFT_OUT if one.number(name)]
    return ", ".join([line, *left_out])


_LEFT_OUT = (("errored", "without a verdict"), ("incoherent", "incoherent"))


def _attack(one: Fields) -> str:
    """What is counted, of which category and form of the requests."""
    parts = (one.text(name) for name in ("category", "converter"))
    return ", ".join([one.text("measure"), *(part for part in parts if part not in ("", "All"))])


def _safety_gate(gate: Fields) -> str:
    return f"{gate.text('verdict')}: {gate.text('candidate')}, {_attack(gate)}: {gate.text('message')}"


def _calibration(one: Fields) -> str:
    """How far a model that grades agrees with people."""
    agreement = _interval(one, "agreement", "agreementLow", "agreementHigh")
    kappa = _interval(one, "kappa", "kappaLow", "kappaHigh")
    return (
        f"{one.text('grader')}: agreement {agreement}, kappa {kappa}, {one.text('examples')} outputs graded by people"
    )
