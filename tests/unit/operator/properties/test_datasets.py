"""What holds for every observed Dataset."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from finetune_api.dataset import DatasetStatus
from finetune_operator.dataset.observed import ObservedDataset
from finetune_operator.dataset.plan import plan
from tests.unit.operator.dataset_states import (
    FOLDER,
    REPORT,
    dataset_job,
    dataset_spec,
    observed_dataset,
    revision,
    run_of,
)
from tests.unit.operator.properties.drawn_states import (
    after,
    assert_settles,
    conditions,
    failures,
    jobs_named,
    maybe,
    moments,
    platforms,
    pods_named,
    record,
    small,
)
from tests.unit.operator.states import NOW, succeeded_pod

NAMES = [dataset_job(), dataset_job(2), dataset_job(run=run_of(2, runId="2")), "nobodys"]
statuses = record(
    DatasetStatus,
    phase=maybe(st.sampled_from(["Waiting", "Building", "Retrying", "Suspended", "Succeeded", "Failed", "Cancelled"])),
    run_id=st.sampled_from([None, "1", "2"]),
    run_number=maybe(small),
    run_digest=st.sampled_from([None, run_of().partition("-")[2], "f00dfeed"]),
    start_time=maybe(moments),
    suspend_time=maybe(moments),
    suspended_seconds=small,
    conditions=conditions,
    observed_generation=maybe(small),
    job_name=maybe(st.sampled_from(NAMES)),
    try_number=maybe(small),
    retry_time=maybe(moments),
    completion_time=maybe(moments),
    storage_uri=st.sampled_from([None, FOLDER]),
    revision=st.sampled_from([None, revision()]),
    failure=failures,
)
observed = st.builds(
    observed_dataset,
    statuses,
    spec=st.builds(
        dataset_spec,
        runId=st.sampled_from(["1", "2"]),
        suspend=st.booleans(),
        cancel=st.booleans(),
        activeDeadlineSeconds=maybe(st.sampled_from([1, 100, 10_000])),
        ttlSecondsAfterFinished=maybe(st.sampled_from([0, 100])),
        retryLimit=small,
    ),
    class_=platforms,
    jobs=jobs_named(NAMES),
    pods=pods_named(NAMES) | st.just((succeeded_pod(NAMES[0], REPORT),)),
)


@settings(max_examples=150)
@given(observed)
def test_plans_of_a_dataset_settle(found: ObservedDataset) -> None:
    assert_settles(found, plan, after)


@settings(max_examples=100)
@given(observed)
def test_a_dataset_is_ready_exactly_if_it_has_succeeded(found: ObservedDataset) -> None:
    decided = plan(found, NOW).status
    is_ready = any(one.type == "Ready" and one.status == "True" for one in decided.conditions)
    assert is_ready == (decided.phase == "Succeeded" and decided.revision is not None)
