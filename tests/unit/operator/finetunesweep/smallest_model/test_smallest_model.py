"""Mode SmallestModel: models of the class from the smallest on, until one passes the gates."""

from __future__ import annotations

from typing import Any

import pytest

from finetune_api.evaluation import OutputsStatus
from finetune_api.finetuneclass import FineTuneClassSpec, Prices
from finetune_api.finetunesweep import FineTuneSweepSpec, SizedModel
from finetune_operator.core.conditions import Readiness
from finetune_operator.finetuneclass.resolve import ResolvedClass
from finetune_operator.finetunesweep.smallest_model.candidates import candidates
from tests.unit.operator.finetunesweep.sweeps import OBJECTIVE, TEMPLATE, SweepWorld

SIZES = {"one": 1_000_000, "two": 2_000_000, "four": 4_000_000}
GATES = [{"grader": "exact", "minimum": 0.4}]


def sizing(template: dict[str, Any] | None = None, models: list[str] | None = None, **rest: Any) -> FineTuneSweepSpec:
    training = {name: value for name, value in TEMPLATE.items() if name != "model"}
    smallest = {"gates": GATES, **({} if models is None else {"models": models})}
    return FineTuneSweepSpec.from_wire(
        {
            "mode": "SmallestModel",
            "template": {"spec": {**training, **(template or {})}},
            "objective": OBJECTIVE,
            "smallestModel": smallest,
            **rest,
        }
    )


def started(prices: dict[str, float] | None = None, accelerators: int = 0, **rest: Any) -> SweepWorld:
    """A sweep over three models, the first of which trains."""
    models = [
        SizedModel(
            name=name,
            uri=f"s3://models/{name}",
            parameters=size,
            prices=Prices(completion_per_million=prices[name]) if prices else None,
        )
        for name, size in SIZES.items()
    ]
    world = SweepWorld(sizing(**rest), models=tuple(models), accelerators=accelerators)
    world.settle()
    return world


def judge(world: SweepWorld, number: int, verdict: str, score: float, **fields: Any) -> None:
    world.has_trained(number)
    world.settle()
    world.is_evaluated(number, score, verdict=verdict, **fields)
    world.settle()


def trained(world: SweepWorld) -> list[str]:
    return [body["spec"]["model"]["uri"] for body in world.created if body["kind"] == "FineTuneJob"]


def message(world: SweepWorld) -> str:
    return next(one for one in world.status.conditions if one.type == "Ready").message


def test_the_first_that_passes_ends_the_sweep_and_no_larger_one_is_trained() -> None:
    """D6."""
    world = started()
    assert trained(world) == ["s3://models/one"], "one at a time, the smallest first"
    judge(world, 1, "GateFailed", 0.2)
    judge(world, 2, "Passed", 0.6)
    assert trained(world) == ["s3://models/one", "s3://models/two"]
    best = world.status.best
    assert best is not None
    assert (world.status.phase, best.number, best.score) == ("Succeeded", 2, 0.6)
    assert [(trial.model, trial.verdict) for trial in world.status.trials] == [("one", "GateFailed"), ("two", "Passed")]
    assert message(world) == (
        "'two' is the smallest model that passes (2,000,000 parameters; 'four', the largest, has 4,000,000): "
        f"FineTuneJob {world.trial(2).fine_tune_job_name!r}. Had none of the 2 models been good enough, one would "
        "pass by chance in about 5.0% of such searches."
    )


def test_of_several_models_one_may_pass_by_luck_and_that_is_reported() -> None:
    first = started()
    judge(first, 1, "Passed", 0.6)
    assert "by chance" not in message(first), "one model has the chance that an Evaluation's gates leave it"
    third = started()
    for number, verdict in ((1, "GateFailed"), (2, "Inconclusive"), (3, "Passed")):
        judge(third, number, verdict, 0.5)
    assert "Had none of the 3 models been good enough, one would pass by chance in about 7.5%" in message(third)
    by_mean = started(smallestModel={"gates": [{**GATES[0], "decision": "PointEstimate"}]})
    judge(by_mean, 1, "Passed", 0.6)
    assert "A gate with decision PointEstimate does not tell luck" in message(by_mean)


@pytest.mark.parametrize(
    ("verdict", "told"),
    [
        ("Passed", "it has 0.5 (0.45 to 0.55), and passes the gates there, too."),
        ("GateFailed", "it has 0.5 (0.45 to 0.55), and does not pass the gates there (GateFailed)."),
    ],
)
def test_the_holdout_examples_judge_by_the_same_gates_and_the_choice_stands(verdict: str, told: str) -> None:
    objective = {**OBJECTIVE["evaluation"], "holdout": {"uri": "s3://data/holdout.jsonl"}}
    world = started(objective={"type": "Evaluation", "evaluation": objective})
    judge(world, 1, "GateFailed", 0.2)
    judge(world, 2, "Passed", 0.6)
    assert world.status.phase == "Running"
    world.holdout_ends(score=0.5, verdict=verdict)
    world.settle()
    assert world.status.best is not None
    assert world.status.holdout is not None
    assert (world.status.phase, world.status.best.number) == ("Succeeded", 2)
    assert (world.status.holdout.score, world.status.holdout.verdict) == (0.5, verdict)
    assert message(world).endswith(told)


def test_its_evaluations_have_the_gates() -> None:
    world = started()
    world.has_trained(1)
    world.settle()
    (body,) = [one for one in world.created if one["kind"] == "Evaluation"]
    assert [(gate["grader"], gate["minimum"]) for gate in body["spec"]["gates"]] == [("exact", 0.4)]


def test_a_smaller_model_with_a_lower_score_is_preferred() -> None:
    world = started(parallel=3)
    judge(world, 3, "Passed", 0.9)
    judge(world, 2, "Passed", 0.5)
    judge(world, 1, "GateFailed", 0.1)
    assert world.status.best is not None
    assert (world.status.phase, world.status.best.number) == ("Succeeded", 2)


def test_larger_ones_that_run_are_cancelled_and_smaller_ones_go_on() -> None:
    world = started(parallel=3)
    judge(world, 2, "Passed", 0.6)
    assert (world.states(), world.trial(3).reason) == (["Running", "Succeeded", "Cancelled"], "SmallerModelPassed")
    assert world.jobs[world.trial(3).fine_tune_job_name].is_cancelled
    assert world.status.phase == "Running", "the smallest may pass, too"
    judge(world, 1, "Passed", 0.5)
    assert world.status.best is not None
    assert (world.status.phase, world.status.best.number) == ("Succeeded", 1)


@pytest.mark.parametrize("killed_after", range(4))
def test_why_larger_ones_are_cancelled_is_known_though_the_operator_was_killed_in_between(killed_after: int) -> None:
    world = started(parallel=3)
    world.has_trained(2)
    world.settle()
    world.is_evaluated(2, 0.6, verdict="Passed")
    world.reconcile(killed_after)
    world.settle()
    assert (world.states(), world.trial(3).reason) == (["Running", "Succeeded", "Cancelled"], "SmallerModelPassed")


def test_inconclusive_does_not_pass() -> None:
    world = started()
    judge(world, 1, "Inconclusive", 0.42)
    assert trained(world) == ["s3://models/one", "s3://models/two"]
    judge(world, 2, "GateFailed", 0.3)
    judge(world, 3, "GateFailed", 0.2)
    assert (world.status.phase, world.reason("Failed")) == ("Failed", ("True", "GateFailed"))
    assert "None of 3 models passes spec.smallestModel.gates. Inconclusive: one. More examples" in message(world)
    assert world.status.best is None


def test_models_that_hours_did_not_allow_are_reported_with_the_limit() -> None:
    world = started(budget={"acceleratorHours": 5}, accelerators=4)
    judge(world, 1, "GateFailed", 0.2)
    assert (world.status.phase, world.reason("Failed")) == ("Failed", ("True", "GateFailed"))
    assert message(world).startswith(
        "Model 'one' does not pass spec.smallestModel.gates. `kubectl describe eval "
        f"{world.trial(1).evaluation_name}` says more of the largest one. 2 larger models were not tried: another "
        "trial would exceed budget.acceleratorHours. Change spec.budget, what is trained or what must be reached, and "
        "spec.runId."
    )


def test_a_model_that_failed_last_does_not_hide_that_hours_are_used_up() -> None:
    world = started(budget={"acceleratorHours": 5}, accelerators=4)
    world.ends(1, "Failed", eval_loss=None, reason="OutOfMemory")
    world.settle()
    assert (world.status.phase, world.reason("Failed")) == ("Failed", ("True", "TrialsFailed"))
    assert "2 larger models were not tried: another trial would exceed budget.acceleratorHours." in message(world)


def test_models_that_a_smaller_budget_cut_off_are_reported_with_it() -> None:
    world = started()
    world.spec = world.spec.model_copy(update={"budget": world.spec.budget.model_copy(update={"trials": 2})})
    judge(world, 1, "GateFailed", 0.2)
    judge(world, 2, "GateFailed", 0.3)
    assert "None of 2 models passes" in message(world)
    assert "1 larger model was not tried: budget.trials is 2." in message(world)


def passes_without_a_score(world: SweepWorld) -> None:
    """The gates are about another grader than the one whose score counts, which graded no output."""
    world.has_trained(1)
    world.settle()
    world.ends(1, "Succeeded", eval_loss=None, score=None, verdict="Passed")
    world.settle()


def test_a_model_without_the_score_that_counts_has_failed_whatever_its_gates_say() -> None:
    world = started()
    passes_without_a_score(world)
    first = world.trial(1)
    assert (first.state, first.reason, first.verdict) == ("Failed", "NoScore", None)
    assert world.states() == ["Failed", "Running"], "the next one is tried"
    judge(world, 2, "Passed", 0.6)
    assert world.status.best is not None
    assert (world.status.phase, world.status.best.number) == ("Succeeded", 2)
    assert "'one' is smaller, and was not judged (NoScore)." in message(world)


def test_a_sweep_with_a_model_without_that_score_can_be_cancelled() -> None:
    world = started()
    passes_without_a_score(world)
    world.spec = world.spec.model_copy(update={"cancel": True})
    world.settle()
    assert (world.status.phase, world.states()) == ("Cancelled", ["Failed", "Cancelled"])


@pytest.mark.parametrize("state", ["Failed", "Cancelled", "Succeeded"])
def test_a_verdict_that_an_earlier_version_kept_without_a_score_chooses_no_model(state: str) -> None:
    world = started()
    kept = world.trial(1).model_copy(update={"state": state, "verdict": "Passed", "reason": "NoScore"})
    world.status = world.status.model_copy(update={"trials": [kept, *world.status.trials[1:]]})
    world.settle()
    judge(world, 2, "Passed", 0.6)
    assert world.status.best is not None
    assert (world.status.phase, world.status.best.number) == ("Succeeded", 2)


def test_one_that_fails_is_followed_by_the_next_and_named_in_the_end() -> None:
    world = started()
    world.ends(1, "Failed", eval_loss=None, reason="OutOfMemory")
    world.settle()
    judge(world, 2, "Passed", 0.6)
    assert "'one' is smaller, and was not judged (OutOfMemory)." in message(world)


def test_what_is_saved_is_reported_only_with_prices_and_measurements() -> None:
    outputs = OutputsStatus(
        candidate="tuned", count=500, prompt_tokens=0, completion_tokens=50_000, latency_milliseconds=120
    )
    world = started({"one": 1.0, "two": 2.0, "four": 8.0})
    judge(world, 1, "Passed", 0.5, outputs=outputs)
    price = "1,000 answers of as many tokens as it was measured with cost 0.1, and 0.8 with 'four'."
    assert message(world).endswith(f" By the class's prices, {price}")
    measured = started(parallel=2)
    judge(measured, 2, "Passed", 0.6, outputs=outputs.model_copy(update={"latency_milliseconds": 340}))
    judge(measured, 1, "Passed", 0.5, outputs=outputs)
    assert message(measured).endswith(" An answer took 120 ms (median), and 340 ms with 'two'.")
    unmeasured = started({"one": 1.0, "two": 2.0, "four": 8.0})
    judge(unmeasured, 1, "Passed", 0.5)
    assert "price" not in message(unmeasured)


@pytest.mark.parametrize("killed_after", range(6))
def test_an_operator_that_is_killed_anywhere_goes_on_with_the_same_models(killed_after: int) -> None:
    world = started()
    world.has_trained(1)
    world.settle()
    world.is_evaluated(1, 0.2, verdict="GateFailed")
    world.models = (SizedModel(name="zero", uri="s3://models/zero", parameters=1),)  # listed by now
    world.reconcile(killed_after)
    world.settle()
    assert trained(world) == ["s3://models/one", "s3://models/two"]
    assert [model.name for model in world.status.models] == list(SIZES)


CATALOGUE = [
    {"name": "four", "base": {"uri": "s3://models/four", "parameters": 4_000_000, "license": "mit"}},
    {"name": "one", "base": {"uri": "s3://models/one", "parameters": 1_000_000, "contextTokens": 512}},
    {"name": "two", "base": {"uri": "s3://models/two", "parameters": 2_000_000, "adapters": ["Full"]}},
    {"name": "kept", "base": {"uri": "s3://models/kept", "parameters": 3_000_000, "adapters": []}},
    {"name": "judge", "url": "https://api.example.com/v1"},
]


def found(spec: FineTuneSweepSpec, listed: list[dict[str, Any]] | None = None) -> tuple[SizedModel, ...] | Readiness:
    storage = {"bucket": "models", "credentialsSecretName": "s3"}
    class_ = FineTuneClassSpec.from_wire({"storage": storage, "models": CATALOGUE if listed is None else listed})
    return candidates(ResolvedClass("gpu", 1, class_, "5a3c"), spec)


@pytest.mark.parametrize(
    ("template", "names"),
    [
        ({}, ["one", "four"]),
        ({"adapter": {"type": "Full"}}, ["one", "two", "four"]),
        ({"hyperparameters": {"maxLength": 1024}}, ["four"]),
    ],
    ids=["LoRA", "Full", "a long context"],
)
def test_the_candidates_are_what_the_class_lets_be_tuned_so_and_the_smallest_is_first(
    template: dict[str, Any], names: list[str]
) -> None:
    models = found(sizing(template))
    assert isinstance(models, tuple)
    assert [model.name for model in models] == names
    assert models[-1].license == "mit"


@pytest.mark.parametrize(
    ("spec", "listed", "told"),
    [
        (
            sizing(models=["gone"]),
            None,
            "names 'gone', and FineTuneClass 'gpu' lists four, one, two, kept as models",
        ),
        (sizing(models=["judge"]), None, "names 'judge', and"),
        (sizing(models=["two"]), None, "names 'two', which may be tuned with Full."),
        (sizing(models=["kept"]), None, "names 'kept', which may not be tuned."),
        (
            sizing({"hyperparameters": {"maxLength": 1024}}, models=["one"]),
            None,
            "names 'one', whose context has 512 tokens, and hyperparameters.maxLength is 1024.",
        ),
        (sizing(), [], "lists no model to fine-tune (spec.models[].base) that takes the template's adapter.type"),
        (sizing(budget={"trials": 1}), None, "spec.budget.trials is 1, but there are 2 models"),
    ],
    ids=["unknown", "behind an API", "another adapter", "not tuned", "a short context", "none", "budget"],
)
def test_what_can_not_be_tried_is_reported_before_a_trial_begins(
    spec: FineTuneSweepSpec, listed: list[dict[str, Any]] | None, told: str
) -> None:
    refused = found(spec, listed)
    assert isinstance(refused, Readiness)
    assert refused.stalled
    assert told in refused.message
    world = SweepWorld(spec, models=refused)
    world.settle()
    assert (world.created, world.status.phase, world.reason("Stalled")) == ([], "Running", ("True", "InvalidSpec"))


def test_a_model_that_passes_is_chosen_though_as_many_others_failed_as_the_budget_allows() -> None:
    world = started(parallel=2, budget={"failures": 1})
    judge(world, 2, "Passed", 0.95)
    world.ends(1, "Failed", eval_loss=None, reason="TrainingDiverged")
    world.settle()
    assert world.status.phase == "Succeeded"
    assert world.status.best is not None
    assert world.status.best.number == 2
