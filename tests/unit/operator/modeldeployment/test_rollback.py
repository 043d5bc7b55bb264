"""spec.rollout.rollbackTo: a revision that has served is rolled out again at once, and kept."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from finetune_api.conditions import Reason
from finetune_api.modeldeployment import ModelDeploymentStatus
from finetune_api.pod_contracts.run import ModelSource
from finetune_operator.core.conditions import progressing
from finetune_operator.core.plan import Plan
from finetune_operator.modeldeployment.observed import ObservedModelDeployment
from finetune_operator.modeldeployment.plan import plan
from tests.unit.operator.crd_schema import assert_storable
from tests.unit.operator.deployment_states import GATED, after, deployment_spec, verdict
from tests.unit.operator.modeldeployment.canary.test_canary import analysing, asked, behind_gateway, with_next
from tests.unit.operator.modeldeployment.plans import serving
from tests.unit.operator.states import NOW, decided

EARLIER, BAD = "sha256:aa", "sha256:bb"


def rolled_back(observed: ObservedModelDeployment, to: str | None = EARLIER, **spec: Any) -> ObservedModelDeployment:
    """It is asked to serve that revision again."""
    changes = {} if to is None else {"rollback_to": to}
    found = observed.spec if not spec else deployment_spec(**spec)
    return replace(observed, spec=found.model_copy(update={"rollout": found.rollout.model_copy(update=changes)}))


def bad_one_serves() -> ObservedModelDeployment:
    """Without a canary, the next model was rolled out, and every replica serves it."""
    observed = with_next(serving())
    observed = after(observed, plan(observed, NOW))
    first, second = observed.status.history
    history = [first.model_copy(update={"available_time": NOW}), second]
    assert [one.revision for one in history] == [BAD, EARLIER]
    return replace(observed, status=observed.status.model_copy(update={"history": history}))


def planned(observed: ObservedModelDeployment) -> Plan[ModelDeploymentStatus]:
    done = plan(observed, NOW)
    assert_storable(done.status)
    return done


def applied(done: Plan[ModelDeploymentStatus]) -> str | None:
    return done.status.applied.revision if done.status.applied is not None else None


def test_it_takes_the_place_of_what_serves_at_once_and_says_so() -> None:
    done = planned(rolled_back(bad_one_serves()))
    assert applied(done) == EARLIER
    assert "Deployment" in {item["kind"] for item in done.apply}
    assert "spec.model is not looked at until it is removed" in done.status.conditions[0].message
    told = [one.message for one in done.events if one.reason == "ReturnedToEarlier"]
    assert told == ["'sha256:aa' is rolled out again in place of 'sha256:bb', by spec.rollout.rollbackTo."]
    again = planned(after(rolled_back(bad_one_serves()), done))
    assert (applied(again), [one for one in again.events if one.reason == "ReturnedToEarlier"]) == (EARLIER, [])


def test_it_needs_neither_the_model_of_the_spec_nor_its_gate() -> None:
    waits = replace(rolled_back(bad_one_serves()), model=progressing(Reason.WAITING_FOR_MODEL, "The job runs."))
    assert applied(planned(waits)) == EARLIER
    gated = replace(rolled_back(bad_one_serves(), **GATED), gate=verdict(False, digest=BAD))
    assert applied(planned(gated)) == EARLIER


def test_a_new_model_waits_as_long_as_it_is_set_and_is_rolled_out_once_it_is_not() -> None:
    third = with_next(rolled_back(bad_one_serves()), ModelSource(uri="s3://models/router/3", digest="sha256:cc"))
    kept = planned(third)
    assert applied(kept) == EARLIER
    removed = replace(after(third, kept), spec=bad_one_serves().spec)
    assert applied(planned(removed)) == "sha256:cc"


@pytest.mark.parametrize("revision", ["sha256:zz", "sha256:aa"])
def test_what_has_never_served_is_refused_with_what_has(revision: str) -> None:
    observed = bad_one_serves()
    if revision == EARLIER:  # It was superseded before it was available.
        first, second = observed.status.history
        history = [first, second.model_copy(update={"available_time": None})]
        observed = replace(observed, status=observed.status.model_copy(update={"history": history}))
    done = planned(rolled_back(observed, revision))
    result = decided(done).decision
    assert (result.reason, result.stalled) == (Reason.INVALID_SPEC, True)
    assert applied(done) == BAD, "what serves goes on"
    assert f"rollbackTo is '{revision}', which is no revision" in done.status.conditions[0].message
    assert "These have: 'sha256:bb'" in done.status.conditions[0].message


def test_pods_get_nothing_of_a_model_that_another_version_wrote_beside_it() -> None:
    observed = bad_one_serves()
    first, second = observed.status.history
    assert second.model is not None
    strange = ModelSource.from_another_version({**second.model.to_wire(), "format": "future"})
    history = [first, second.model_copy(update={"model": strange})]
    done = plan(rolled_back(replace(observed, status=observed.status.model_copy(update={"history": history}))), NOW)
    assert applied(done) == EARLIER
    assert "future" not in str([item for item in done.apply if item["kind"] == "ConfigMap"])


def test_a_canary_that_runs_ends_and_what_served_stays() -> None:
    observed = analysing()
    first, *others = observed.status.history
    history = [first.model_copy(update={"available_time": NOW}), *others]
    observed = replace(observed, status=observed.status.model_copy(update={"history": history}))
    done = planned(rolled_back(observed, first.revision))
    assert applied(done) == first.revision
    assert done.status.canary is not None
    assert (done.status.canary.phase, done.status.canary.outcome) == ("Ending", "Withdrawn")


def test_what_a_canary_had_promoted_and_was_undone_is_not_tried_again_after_it() -> None:
    observed = behind_gateway()
    promoted = replace(with_next(observed), spec=deployment_spec(gateway={"replicas": 1}))
    promoted = replace(after(promoted, plan(promoted, NOW)), spec=asked())
    undone = planned(rolled_back(promoted))
    assert (applied(undone), undone.status.aborted[0].revision) == (EARLIER, BAD)
    assert [one.reason for one in undone.events].count("RolledBack") == 1
    removed = replace(after(rolled_back(promoted), undone), spec=asked())
    done = planned(removed)
    assert applied(done) == EARLIER
    assert "'sha256:bb' was rolled back: It served, and spec.rollout.rollbackTo undid that." in decided(done).message
    assert done.status.canary is None
    again = planned(with_next(removed, ModelSource(uri="s3://models/router/3", digest="sha256:cc")))
    assert applied(again) == EARLIER, "another model is a canary, or waits until one can be compared"
