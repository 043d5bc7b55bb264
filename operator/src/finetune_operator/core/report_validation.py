"""What Pods report at their end, held against what was asked of them.

A report decides what is served and what is paid for, and who may exec into a Pod may write it: what points out of the
run's folder, or at another model, is not taken.
"""

from __future__ import annotations

from collections.abc import Collection

from finetune_api.evaluation import Score
from finetune_api.finetunejob import Result


def is_below(uri: str, folder: str | None) -> bool:
    """Whether a URI lies in the folder."""
    if folder is None:
        return False
    root = folder.rstrip("/") + "/"
    return uri.startswith(root) and not {"", ".", ".."} & set(uri.removeprefix(root).split("/"))


def result_refusal(result: Result, folder: str | None, base_model_uri: str) -> str | None:
    """Why a run's result is not taken; None when it is what was asked for."""
    for name, uri in (("uri", result.uri), ("reportUri", result.report_uri)):
        if uri is not None and not is_below(uri, folder):
            return f"its result's {name} is {uri!r}, which is not in the run's folder {folder}"
    if result.base_model_uri != base_model_uri:
        return f"its result's baseModelUri is {result.base_model_uri!r}, and {base_model_uri!r} was to be tuned"
    return None


def scores_refusal(
    scores: Collection[Score],
    report_uri: str | None,
    folder: str | None,
    models: Collection[str],
    graders: Collection[str],
) -> str | None:
    """Why an evaluation's report is not taken; None when it is about what was asked."""
    if report_uri is not None and not is_below(report_uri, folder):
        return f"its reportUri is {report_uri!r}, which is not in the run's folder {folder}"
    keys = [(score.candidate, score.grader) for score in scores]
    strange = [key for key in keys if key[0] not in models or key[1] not in graders]
    if strange:
        return f"it has a score of {strange[0][0]!r} by {strange[0][1]!r}, which nobody asked for"
    return "it has two scores of one model by one grader" if len(set(keys)) < len(keys) else None
