"""Checkpoints as candidates: which ones a job offers, what they are named, and which is the best."""

from __future__ import annotations

from typing import Any

import pytest

from finetune_api.conditions import Reason
from finetune_api.evaluation import EvaluationSpec, EvaluationStatus, Score
from finetune_api.finetunejob import CheckpointStatus, FineTuneJobStatus
from finetune_api.finetunejob.status import StartingModel
from finetune_api.pod_contracts.outcome import EvaluationReport
from finetune_api.pod_contracts.run import CheckpointSource, EvaluateRun, ModelSource
from finetune_operator.core.conditions import Readiness
from finetune_operator.environment import Environment
from finetune_operator.evaluation.candidates import models_to_evaluate
from finetune_operator.evaluation.objects import evaluate_job_name
from finetune_operator.evaluation.observe import observe
from finetune_operator.evaluation.observed import ObservedEvaluation
from finetune_operator.evaluation.plan import plan
from finetune_operator.kube.resources import EVENTS, FINE_TUNE_CLASSES, FINE_TUNE_JOBS, JOBS, PODS
from finetune_operator.models.checkpoints import checkpoint_models
from finetune_operator.models.resolve import ResolvedModel
from tests.unit.operator.evaluation.plans import decide
from tests.unit.operator.evaluation_states import (
    BASE,
    EVALUATION,
    EVALUATION_WIRE,
    evaluation_spec,
    evaluation_status,
    observed_evaluation,
    score,
)
from tests.unit.operator.fake_kube import FakeKube
from tests.unit.operator.states import NOW, RESULT, job, job_spec, later, succeeded_pod

FOLDER = "s3://models/finetune/team-a/router/1-0f3c2a91"
ALL_OF_ROUTER = [{"name": "tuned", "model": {"fineTuneJobRef": {"name": "router"}, "checkpoint": "All"}}]


def checkpoint(step: int, metric: float | None = None) -> CheckpointStatus:
    uri = f"{FOLDER}/checkpoints/step-{step:06d}/claim-000001"
    return CheckpointStatus(step=step, uri=uri, metric=metric, digest=f"sha256:{step}")


KEPT = [checkpoint(100, 0.9), checkpoint(200, 0.4), checkpoint(300, 0.4), checkpoint(400, 0.6)]


def run_of(checkpoints: list[CheckpointStatus] = KEPT, **changes: Any) -> FineTuneJobStatus:
    status = FineTuneJobStatus(
        phase="Succeeded",
        run_id="1",
        result=RESULT,
        checkpoints=checkpoints,
        starting_model=StartingModel(uri=BASE.uri),
    )
    return status.model_copy(update=changes)


def found(choice: Any, status: FineTuneJobStatus | None = None, **of_spec: Any) -> Any:
    return checkpoint_models("router", job_spec(**of_spec), status or run_of(), choice)


def of_step(step: int) -> ResolvedModel:
    known = checkpoint(step)
    source = CheckpointSource(uri=known.uri, step=step, digest=known.digest, adapter=job_spec().adapter.to_wire())
    return ResolvedModel(BASE.model_copy(update={"checkpoint": source}), BASE)


# Which ones a job offers.


@pytest.mark.parametrize(
    ("choice", "steps"),
    [(200, [200]), ("Last", [400]), ("Best", [200]), ("All", [100, 200, 300, 400])],
    ids=["a step", "the last", "the best, of two equal ones the earlier", "all"],
)
def test_a_checkpoint_is_the_starting_model_with_the_folder_of_its_step(choice: Any, steps: list[int]) -> None:
    assert found(choice) == {step: of_step(step) for step in steps}


def test_of_equal_rewards_the_later_checkpoint_is_the_best() -> None:
    """As the trainer chooses the result."""
    rewarded = run_of([checkpoint(1, 0.4), checkpoint(2, 0.5), checkpoint(3, 0.5)])
    best: dict[str, Any] = {"checkpoints": {"best": {"metric": "ValidReward", "goal": "Maximize"}}}
    assert list(found("Best", rewarded, **best)) == [3]


def test_the_best_of_a_metric_to_maximize_has_the_highest() -> None:
    best = {"checkpoints": {"best": {"metric": "TrainLoss", "goal": "Maximize"}}}
    assert list(found("Best", **best)) == [100]


def test_of_a_step_that_is_there_twice_the_first_is_taken() -> None:
    """As a Pod with another image may report it, or a forged one: equal in all that is compared."""
    twice = [checkpoint(200, 0.4), checkpoint(200, 0.4).model_copy(update={"digest": "sha256:other"})]
    assert found("Best", run_of(twice)) == {200: of_step(200)}


@pytest.mark.parametrize("step", [-1, 2**31, 10**18])
def test_a_step_that_no_run_can_have_is_no_checkpoint(step: int) -> None:
    """Its name as a candidate could be too long, and no plan could be made."""
    assert list(found("All", run_of([checkpoint(step), *KEPT]))) == [100, 200, 300, 400]
    assert list(found("Last", run_of([*KEPT, checkpoint(step)]))) == [400]


def test_a_checkpoint_of_a_continued_adapter_names_what_its_training_began_with() -> None:
    began = StartingModel(uri=BASE.uri, adapter_uri="s3://models/first", digest="sha256:first")
    model = found("Last", run_of(starting_model=began))[400]
    assert (model.source.adapter_uri, model.source.digest) == ("s3://models/first", "sha256:first")
    assert model.source.identity == "sha256:400"


@pytest.mark.parametrize("phase", ["Failed", "Cancelled"])
def test_so_does_a_run_that_ended_early(phase: str) -> None:
    assert list(found("Last", run_of(phase=phase, result=None))) == [400]


@pytest.mark.parametrize(
    ("choice", "kept", "told"),
    [
        (250, KEPT, "has no checkpoint of step 250. It has kept those of the steps 100, 200, 300, 400"),
        ("Best", [checkpoint(100), checkpoint(200)], "sets no checkpoints.best. Choose Last, or one"),
        ("All", [], "has kept no checkpoint"),
    ],
    ids=["no such step", "no metric", "none"],
)
def test_what_is_not_there_is_reported_with_what_is(choice: Any, kept: list[CheckpointStatus], told: str) -> None:
    refused = found(choice, run_of(kept))
    assert isinstance(refused, Readiness)
    assert (refused.reason, refused.stalled) == (Reason.REFERENCE_NOT_FOUND, True)
    assert told in refused.message


@pytest.mark.parametrize("phase", ["Training", "Retrying", "Suspended"])
def test_a_run_that_goes_on_is_waited_for_because_it_deletes_older_checkpoints(phase: str) -> None:
    waiting = found(100, run_of(phase=phase, result=None))
    assert isinstance(waiting, Readiness)
    assert (waiting.reason, waiting.stalled) == (Reason.WAITING_FOR_MODEL, False)


# What they are named.


async def observed(spec: dict[str, Any]) -> ObservedEvaluation:
    """With a finished FineTuneJob in the namespace, and nothing else."""
    names = {"name": EVALUATION.name, "namespace": EVALUATION.namespace, "uid": EVALUATION.uid}
    parent = {
        "kind": "Evaluation",
        "metadata": {**names, "generation": 1, "creationTimestamp": "2026-11-22T11:00:00Z"},
        "spec": {**EVALUATION_WIRE, **spec},
    }
    of_job = {"metadata": {"name": "router"}, "spec": job_spec().to_wire(), "status": run_of().to_wire()}
    nothing: Any = {"items": [], "metadata": {}}
    lists = [resource.path(EVALUATION.namespace) for resource in (JOBS, PODS, EVENTS)]
    answers = {f"GET {path}": nothing for path in (*lists, FINE_TUNE_CLASSES.path(None))}
    kube = FakeKube(answers | {f"GET {FINE_TUNE_JOBS.path(EVALUATION.namespace, 'router')}": of_job})
    return await observe(kube, parent, environment=Environment())


async def test_with_all_each_checkpoint_is_a_candidate_by_its_step_against_the_base() -> None:
    seen = await observed({"candidates": ALL_OF_ROUTER})
    models = models_to_evaluate(seen)
    assert not isinstance(models, Readiness)
    assert [model.name for model in models] == ["baseline", *(f"tuned-step-{step}" for step in (100, 200, 300, 400))]
    assert models[0].model == BASE


async def test_a_step_keeps_the_candidates_own_name() -> None:
    one = {"name": "tuned", "model": {"fineTuneJobRef": {"name": "router"}, "checkpoint": 300}}
    assert (await observed({"candidates": [one]})).candidates == (("tuned", of_step(300)),)


async def test_more_than_one_evaluation_compares_are_refused_with_what_to_do() -> None:
    graders = [{"name": f"g{at}", "type": "StringCheck", "stringCheck": {}} for at in range(8)]
    refused = models_to_evaluate(await observed({"candidates": ALL_OF_ROUTER, "graders": graders, "gates": []}))
    assert isinstance(refused, Readiness)
    assert (refused.reason, refused.stalled) == (Reason.INVALID_SPEC, True)
    assert "spec.candidates are 4 models" in refused.message
    assert "with 8 graders and benchmarks an Evaluation compares 3 while its Pod can't send" in refused.message
    assert "(the operator has no --progress-url). Name steps instead of All" in refused.message


# Which is the best.

STEPS = (100, 200, 300)
MODELS = [(f"tuned-step-{step}", of_step(step)) for step in STEPS]


def spec_of(**changes: Any) -> EvaluationSpec:
    return evaluation_spec(**{"candidates": ALL_OF_ROUTER, **changes})


def ended(scores: list[Score], **changes: Any) -> Any:
    spec = spec_of(**changes)
    digests = {name: f"sha256:{step}" for (name, _), step in zip(MODELS, STEPS, strict=True)}
    begun = observed_evaluation(spec=spec, candidates=tuple(MODELS))
    models = models_to_evaluate(begun)
    assert not isinstance(models, Readiness)
    name = evaluate_job_name(EVALUATION, spec, models, 1)
    status = evaluation_status(candidate_digests=digests, job_name=name)
    pods = (succeeded_pod(name, EvaluationReport(scores=scores)),)
    return decide(observed_evaluation(status, job(name, "Complete"), pods=pods, spec=spec, candidates=tuple(MODELS)))


def scored(*means: float) -> list[Score]:
    of_steps = [score(name, mean, delta=mean - 0.25) for (name, _), mean in zip(MODELS, means, strict=True)]
    return [score("baseline", 0.25), *of_steps]


def test_the_best_checkpoint_is_named_with_its_interval_and_alone_judged_by_the_gates() -> None:
    result = ended(scored(0.3, 0.8, 0.5))
    (best,) = result.status.best_checkpoints
    assert (best.candidate, best.step, best.checkpoint) == ("tuned", 200, "tuned-step-200")
    assert (best.grader, best.score, best.low, best.high) == ("exact", 0.8, pytest.approx(0.75), pytest.approx(0.85))
    assert best.tied is None
    assert [(gate.candidate, gate.verdict) for gate in result.status.gates] == [("tuned-step-200", "Passed")]
    assert result.decision.passed is True
    assert result.status.summary == "tuned-step-200: exact 0.800 [0.750, 0.850] vs 0.250 [0.200, 0.300]"


def test_checkpoints_whose_intervals_overlap_are_reported_as_tied_and_of_equal_ones_the_earlier_is_the_best() -> None:
    (best,) = ended(scored(0.72, 0.8, 0.8)).status.best_checkpoints
    assert (best.step, best.tied) == (200, [100, 300])


def test_a_score_that_was_chosen_as_the_best_is_reported_to_be_optimistic() -> None:
    warnings = ended(scored(0.3, 0.8, 0.5)).status.warnings
    assert [text for text in warnings if text.startswith("ChosenByScore: tuned-step-200 is the best of several")]


def test_another_first_gate_chooses_again_by_its_grader_and_direction() -> None:
    graders = [*EVALUATION_WIRE["graders"], {"name": "leaks", "type": "StringCheck", "stringCheck": {}}]
    leaks = [score(name, mean, grader="leaks") for (name, _), mean in zip(MODELS, (0.5, 0.4, 0.1), strict=True)]
    first = ended([*scored(0.3, 0.8, 0.5), *leaks], graders=graders)
    assert first.status.best_checkpoints[0].step == 200
    strict = spec_of(graders=graders, gates=[{"grader": "leaks", "maximum": 0.2}])
    again = plan(observed_evaluation(first.status, spec=strict, candidates=tuple(MODELS), generation=2), later(9))
    assert (again.status.best_checkpoints[0].step, again.status.gates[0].candidate) == (300, "tuned-step-300")


def test_scores_of_a_step_that_the_run_did_not_measure_are_refused() -> None:
    result = ended([*scored(0.3, 0.8, 0.5), score("tuned-step-999", 1.0)])
    assert result.status.failure is not None
    assert "'tuned-step-999'" in result.status.failure.message


def test_the_pod_is_told_each_checkpoint_pinned_by_its_digest() -> None:
    begun = plan(observed_evaluation(EvaluationStatus(), spec=spec_of(), candidates=tuple(MODELS)), NOW)
    created = next(one for one in begun.create if one["kind"] == "ConfigMap")
    run = EvaluateRun.model_validate_json(created["data"]["run.json"])
    assert [one.model.checkpoint.digest for one in run.models[1:] if one.model and one.model.checkpoint] == [
        f"sha256:{step}" for step in STEPS
    ]
    assert begun.status.candidate_digests == {f"tuned-step-{step}": f"sha256:{step}" for step in STEPS}


def test_models_that_are_no_checkpoints_are_told_to_pods_as_before() -> None:
    """Names of Jobs and of a deployment's objects are made of this text: an upgrade must not make others."""
    assert "checkpoint" not in ModelSource(uri="s3://models/base").model_dump_json()
