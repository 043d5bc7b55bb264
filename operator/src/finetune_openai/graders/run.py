"""One grader on one output, with what Evaluations grade with, and the result in OpenAI's words."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from finetune_api.graders import Grader
from finetune_grading.grade import Grade
from finetune_grading.grade_rows import grade_rows
from finetune_grading.graders.interface import InvalidGraderError
from finetune_grading.openai_graders.criteria import translate_grader
from finetune_grading.openai_graders.findings import Findings
from finetune_grading.registered_graders import compile_graders, load_graders
from finetune_grading.sample import Row, Sample
from finetune_openai.graders.request import RunRequest

_CODES = (
    "formula_parse_error",
    "sample_parse_error",
    "truncated_observation_error",
    "unresponsive_reward_error",
    "invalid_variable_error",
    "other_error",
    "python_grader_server_error",
    "python_grader_runtime_error",
    "model_grader_server_error",
    "model_grader_refusal_error",
    "model_grader_parse_error",
)
"""All that OpenAI's clients know."""


class InvalidRequestError(ValueError):
    """The grader can't work, or not here. The message says what to change."""


def checked(grader: Mapping[str, Any]) -> list[Grader]:
    """The grader as graders of an Evaluation: those of a multi, then itself. Raises InvalidRequestError."""
    findings = Findings(strict=True)
    found = translate_grader(grader, findings)
    if findings.refused:
        raise InvalidRequestError("\n".join(findings.refused))
    return found


async def run(request: RunRequest) -> dict[str, Any]:
    """The body of the answer. Raises InvalidRequestError."""
    started = time.monotonic()
    graders = checked(request.grader)
    asking = next((grader for grader in graders if grader.asks is not None), None)
    if asking is not None:
        raise InvalidRequestError(
            f"grader: {asking.name!r} asks a model, and the API has no key of the platform's models. Try it in an "
            "Evaluation with `outputs`."
        )
    running = next((grader for grader in graders if grader.type == "Python"), None)
    if running is not None:
        raise InvalidRequestError(
            f"grader: {running.name!r} is Python code, which is not run in the API server's process. `validate` checks "
            "it; try it in an Evaluation with `outputs`, which runs it in a sandbox."
        )
    try:
        load_graders(graders)
        grades = await grade_rows(
            compile_graders(graders, as_rewards=True), [Row(request.item, Sample(request.model_sample))]
        )
    except InvalidGraderError as error:
        raise InvalidRequestError(f"grader: {error.problem}") from error
    first = {name: of_rows[0] for name, of_rows in grades.items()}
    return _body(request.grader, graders, first, time.monotonic() - started)


def _body(
    given: Mapping[str, Any], graders: Sequence[Grader], grades: Mapping[str, Grade], seconds: float
) -> dict[str, Any]:
    *parts, whole = graders
    rewards = {
        theirs: grades[ours.name].score or 0.0 for theirs, ours in zip(_names_of_parts(given), parts, strict=True)
    }
    reward = grades[whole.name].score or 0.0
    return {
        "reward": reward,
        "sub_rewards": rewards,
        "model_grader_token_usage_per_model": {},
        "metadata": {
            "name": given["name"],
            "type": given["type"],
            "errors": _errors(grades.values()),
            "execution_time": round(seconds, 6),
            "scores": {given["name"]: reward, **rewards},
            "token_usage": None,
            "sampled_model_name": None,
        },
    }


def _names_of_parts(given: Mapping[str, Any]) -> list[str]:
    """What a multi calls its graders. One alone, without a key, has its own name, as the SDK's type wants it."""
    inside = given.get("graders", {})
    return [inside["name"]] if isinstance(inside.get("type"), str) else list(inside)


def _errors(grades: Collection[Grade]) -> dict[str, Any]:
    """A flag for each code. Beside them, where anything failed, what OpenAI does not say: why."""
    found = [grade.error for grade in grades if grade.error is not None]
    codes = {error.code.value if error.code.value in _CODES else "other_error" for error in found}
    details = list(dict.fromkeys(error.details for error in found))
    return {code: code in codes for code in _CODES} | ({"details": details} if details else {})
