"""OpenAI's method `reinforcement`, as method.rft. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from finetune_api.base import problems
from finetune_api.finetunejob import RFT
from finetune_grading.openai_graders.criteria import translate_grader
from finetune_grading.openai_graders.findings import Findings
from finetune_grading.rewards import reward_problem

COMPLETIONS = 8
"""What a compute multiplier multiplies: the completions of each prompt."""
MOST_COMPLETIONS = 64
_MODELS = ("ScoreModel", "LabelModel")


def to_rft(grader: Mapping[str, Any], compute_multiplier: float, eval_samples: int | None) -> dict[str, Any]:
    """method.rft. Raises ValueError for a grader that can't reward, with what to change."""
    findings = Findings(strict=True)
    graders = translate_grader(grader, findings)
    if findings.refused:
        raise ValueError("; ".join(findings.refused))
    asking = next((one for one in graders if one.asks is not None or one.type in _MODELS), None)
    if asking is not None:
        raise ValueError(f"grader: {asking.name!r} asks a model, which a reward can't here; use other graders")
    running = next((one for one in graders if one.type == "Python"), None)
    if running is not None:
        raise ValueError(
            f"grader: {running.name!r} is Python code, which runs in an Evaluation's sandbox and rewards nothing; use "
            "other graders"
        )
    *inside, last = graders
    spec: dict[str, Any] = {
        "graders": [_without_threshold(one.to_wire()) for one in (graders if last.multi is None else inside)],
        "reward": last.name if last.multi is None else last.multi.calculate_output,
        "completionsPerPrompt": min(MOST_COMPLETIONS, max(2, round(COMPLETIONS * compute_multiplier))),
    }
    if eval_samples is not None:
        spec["evaluation"] = {"completionsPerPrompt": eval_samples}
    try:
        problem = reward_problem(RFT.from_wire(spec))
    except ValidationError as error:
        problem = problems(error)
    if problem is not None:
        raise ValueError(f"grader: {problem}")
    return spec


def _without_threshold(grader: dict[str, Any]) -> dict[str, Any]:
    """A reward counts scores, not whether they pass."""
    return {name: value for name, value in grader.items() if name != "passThreshold"}
