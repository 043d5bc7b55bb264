"""status.history: what was rolled out, and how far it came."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from finetune_api.pod_contracts.run import ModelSource
from finetune_operator.modeldeployment.plan import plan
from finetune_operator.modeldeployment.serving.history import MOST_REVISIONS, with_rollout
from finetune_operator.models.resolve import ResolvedModel
from tests.unit.operator.deployment_states import deployment_spec, observed_deployment
from tests.unit.operator.evaluation_states import tuned
from tests.unit.operator.modeldeployment.plans import decide, serving
from tests.unit.operator.states import NOW

LATER = NOW + timedelta(hours=1)


def model(name: str) -> ModelSource:
    return ModelSource(uri=f"s3://models/{name}", digest=f"sha256:{name}")


def test_a_rollout_is_in_the_history_from_its_beginning() -> None:
    (begun,) = decide(observed_deployment()).status.history
    assert (begun.revision, begun.model) == (tuned().source.revision, tuned().source)
    assert (begun.applied_time, begun.available_time) == (NOW, None)


def test_it_says_when_it_was_complete_and_that_stays() -> None:
    observed = serving()
    (served,) = observed.status.history
    assert served.available_time == NOW
    assert plan(observed, LATER).status.history == [served]
    assert observed.deployment is not None
    lost = replace(observed, deployment={**observed.deployment, "status": {}}, pods=())
    assert plan(lost, LATER).status.history == [served], "a Pod that went is no rollout"


def test_a_model_that_was_scaled_to_zero_before_it_served_was_not_available() -> None:
    idle = serving(spec=deployment_spec(replicas=0))
    assert [one.available_time for one in idle.status.history] == [None]


def test_the_next_model_comes_first_and_one_that_was_superseded_has_no_time() -> None:
    observed = serving()
    following = ResolvedModel(model("bb"))
    after = plan(replace(observed, model=following), LATER).status
    assert [one.revision for one in after.history] == ["sha256:bb", tuned().source.revision]
    newest = with_rollout(after.history, model("cc"), complete=True, now=LATER)
    assert [(one.revision, one.available_time) for one in newest] == [
        ("sha256:cc", LATER),
        ("sha256:bb", None),
        (tuned().source.revision, NOW),
    ]


def test_the_oldest_is_forgotten() -> None:
    history = with_rollout([], model("0"), complete=True, now=NOW)
    for number in range(1, 20):
        history = with_rollout(history, model(str(number)), complete=True, now=NOW)
    assert [one.revision for one in history] == [f"sha256:{number}" for number in range(19, 19 - MOST_REVISIONS, -1)]


def test_a_model_that_is_rolled_out_again_is_there_twice() -> None:
    history = with_rollout([], model("a"), complete=True, now=NOW)
    history = with_rollout(history, model("b"), complete=True, now=NOW)
    history = with_rollout(history, model("a"), complete=False, now=LATER)
    assert [one.revision for one in history] == ["sha256:a", "sha256:b", "sha256:a"]
