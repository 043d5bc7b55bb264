"""spec.candidates and spec.baseline: the models that an Evaluation compares.

With `checkpoint: All` a candidate is several: each is named by its step in the results, and gates judge the best.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from finetune_api.conditions import Reason
from finetune_api.evaluation import (
    BASELINE,
    MOST_CANDIDATES,
    MOST_SCORES,
    MOST_SCORES_IN_A_MESSAGE,
    BestCheckpoint,
    Candidate,
    Endpoint,
    EvaluationSpec,
    EvaluationStatus,
    Gate,
    Outputs,
    Score,
)
from finetune_api.evaluation.models import ALL
from finetune_api.pod_contracts.run import NamedModel
from finetune_operator.core.conditions import Readiness, stalled
from finetune_operator.evaluation.observed import Answering, ObservedEvaluation
from finetune_operator.models.resolve import ResolvedModel, Undecided

CHOSEN_BY_SCORE = "ChosenByScore"


def models_to_evaluate(observed: ObservedEvaluation) -> list[NamedModel] | Readiness:
    """The candidates and the baseline; if one of them can't be used yet, the reason."""
    models: list[NamedModel] = []
    graders = len(observed.spec.graders) + len(observed.spec.benchmarks)
    baseline, found = observed.baseline, [model for _, model in observed.candidates]
    waiting = [one for one in (*found, baseline) if isinstance(one, Readiness)]
    if waiting:
        # A missing model takes precedence over one whose reference can't be resolved yet.
        return next((one for one in waiting if not isinstance(one, Undecided)), waiting[0])
    for name, model in observed.candidates:
        assert not isinstance(model, Readiness)
        models.append(_named(name, model))
        if baseline is None and isinstance(model, ResolvedModel) and model.base is not None:
            baseline = ResolvedModel(model.base)
    # Where Pods can't reach the operator, every score must fit into a termination message.
    most_scores = MOST_SCORES if observed.progress_endpoint is not None else MOST_SCORES_IN_A_MESSAGE
    if len(found) > min(MOST_CANDIDATES, most_scores // graders - 1):
        return _too_many(len(found), graders, most_scores)
    assert not isinstance(baseline, Readiness)
    if baseline is not None:
        models.insert(0, _without_digest(_named(BASELINE, baseline)))
    return models


def candidate_digests(models: Sequence[NamedModel]) -> dict[str, str]:
    """The digest of each candidate by name: it differs if the model at the same URI is another one."""
    candidates = [model for model in models if model.name != BASELINE]
    digests = {model.name: model.model.identity for model in candidates if model.model is not None}
    return {name: digest for name, digest in digests.items() if digest is not None}


def checkpoint_name(candidate: str, step: int) -> str:
    """The name of a checkpoint in the results."""
    return f"{candidate}-step-{step}"


def names_in_results(spec: EvaluationSpec, digests: Mapping[str, str]) -> list[str]:
    """Every candidate as the results name it. `digests`: status.candidate_digests, which has the checkpoints."""
    return [name for candidate in spec.candidates for name in _names(candidate, digests)]


def gated_names(spec: EvaluationSpec, best: Iterable[BestCheckpoint]) -> list[str]:
    """The candidates that gates are about, as the results name them: of several checkpoints, the best."""
    chosen = {one.candidate: one.checkpoint for one in best}
    return [chosen.get(candidate.name, candidate.name) for candidate in spec.candidates]


def best_checkpoints(spec: EvaluationSpec, status: EvaluationStatus) -> list[BestCheckpoint]:
    """The best checkpoint of each candidate with checkpoint All, by the first gate's grader."""
    gate = next((one for one in spec.gates if one.grader is not None and one.calibration is None), None)
    grader = spec.graders[0].name if gate is None else gate.scored_by
    sign = 1 if gate is not None and _is_maximum(gate) else -1
    found = []
    for candidate in spec.candidates:
        if candidate.model.checkpoint == ALL:
            by_step = _scores(candidate, status, grader)
            if by_step:
                _, step = min((sign * score.score, step) for step, score in by_step.items())
                found.append(_best(candidate.name, step, by_step))
    return found


def chosen_by_score(best: Sequence[BestCheckpoint], status: EvaluationStatus, gates: Sequence[Gate]) -> list[str]:
    """A warning for each candidate of which several checkpoints were compared: the score of the best is partly luck."""
    if not gates:
        return []
    return [
        f"{CHOSEN_BY_SCORE}: {one.checkpoint} is the best of several checkpoints on the same examples that the gates "
        f"judge it by, so its score is optimistic. Confirm it on others: checkpoint: {one.step}."
        for one in best
        if len(_steps(one.candidate, status.candidate_digests)) > 1
    ]


def _named(name: str, model: Answering) -> NamedModel:
    match model:
        case Endpoint():
            return NamedModel(name=name, endpoint=model.name)
        case Outputs():
            return NamedModel(name=name, outputs_uri=model.uri)
        case ResolvedModel():
            return NamedModel(name=name, model=model.source)


def _too_many(candidates: int, graders: int, most_scores: int) -> Readiness:
    """All may be many checkpoints; every score of each must fit into one report."""
    most = min(MOST_CANDIDATES, most_scores // graders - 1)
    why = (
        ""
        if most_scores == MOST_SCORES
        else " while its Pod can't send its report (the operator has no --progress-url)"
    )
    return stalled(
        Reason.INVALID_SPEC,
        f"spec.candidates are {candidates} models, one for each checkpoint, and with {graders} graders and benchmarks "
        f"an Evaluation compares {most}{why}. Name steps instead of All (checkpoint: 100), use fewer graders, or keep "
        "fewer checkpoints (checkpoints.keep of the FineTuneJob).",
    )


def _without_digest(baseline: NamedModel) -> NamedModel:
    """A new digest of the baseline starts no new run: only those of candidates do."""
    if baseline.model is None or baseline.model.checkpoint is not None:
        return baseline
    return baseline.model_copy(update={"model": baseline.model.model_copy(update={"digest": None})})


def _best(candidate: str, step: int, by_step: Mapping[int, Score]) -> BestCheckpoint:
    score = by_step[step]
    tied = [
        other
        for other, one in sorted(by_step.items())
        if other != step and one.low <= score.high and score.low <= one.high
    ]
    return BestCheckpoint(
        candidate=candidate,
        step=step,
        checkpoint=score.candidate,
        grader=score.grader,
        score=score.score,
        low=score.low,
        high=score.high,
        tied=tied or None,
    )


def _scores(candidate: Candidate, status: EvaluationStatus, grader: str) -> dict[int, Score]:
    by_name = {score.candidate: score for score in status.results if score.grader == grader}
    named = {step: checkpoint_name(candidate.name, step) for step in _steps(candidate.name, status.candidate_digests)}
    return {step: by_name[name] for step, name in named.items() if name in by_name}


def _names(candidate: Candidate, digests: Mapping[str, str]) -> list[str]:
    if candidate.model.checkpoint != ALL:
        return [candidate.name]
    return [checkpoint_name(candidate.name, step) for step in _steps(candidate.name, digests)]


def _steps(candidate: str, digests: Mapping[str, str]) -> list[int]:
    prefix = checkpoint_name(candidate, 0)[:-1]
    steps = [name.removeprefix(prefix) for name in digests if name.startswith(prefix)]
    return sorted(int(step) for step in steps if step.isdecimal())


def _is_maximum(gate: Gate) -> bool:
    return gate.maximum is not None or gate.maximum_delta is not None
