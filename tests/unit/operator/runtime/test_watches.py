"""Who is woken by which change: a class wakes its jobs, a job its evaluations, an evaluation its deployments."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune_operator.core.references import ObjectKey, References
from finetune_operator.environment import Environment
from finetune_operator.kube.cache import Cache
from finetune_operator.kube.resources import FINE_TUNE_JOBS, PODS
from finetune_operator.kube.selectors import label_selector
from finetune_operator.registered_kinds import KINDS as REGISTERED
from finetune_operator.runtime import watches
from finetune_operator.runtime.sharding import WHOLE
from finetune_operator.runtime.workqueue import WorkQueue
from tests.unit.operator.fake_kube import FakeKube
from tests.unit.operator.pod_objects import controlled_by

KINDS = [kind(Environment()) for kind in REGISTERED]
CLASS, DEFAULT = ObjectKey("FineTuneClass", "", "cpu"), ObjectKey("FineTuneClass", "", "")
JOB, EVALUATION = ObjectKey("FineTuneJob", "team-a", "router"), ObjectKey("Evaluation", "team-a", "router-eval")
PROD = ObjectKey("FineTuneClass", "", "prod")
DEPLOYMENT = ObjectKey("ModelDeployment", "team-a", "router")


def body(key: ObjectKey, annotations: dict[str, str] | None = None, **spec: Any) -> dict[str, Any]:
    meta = {"name": key.name, "namespace": key.namespace, "annotations": annotations or {}}
    return {"kind": key.kind, "metadata": meta, "spec": spec}


OF_JOB = {"fineTuneJobRef": {"name": "router"}}


@pytest.mark.parametrize(
    ("parent", "expected"),
    [
        (body(CLASS), set()),
        (body(JOB), {DEFAULT}),
        ({**body(JOB), "status": {"className": "cpu"}}, {DEFAULT, CLASS}),
        ({**body(JOB, className="cpu"), "status": {"storageFolders": [{"className": "prod"}, "odd"]}}, {CLASS, PROD}),
        ({**body(EVALUATION), "status": {"className": "cpu"}}, {DEFAULT, CLASS}),
        (body(JOB, className="cpu", model={"uri": "s3://models/base"}), {CLASS}),
        (body(EVALUATION, className="cpu", candidates=[{"name": "tuned", "model": OF_JOB}]), {CLASS, JOB}),
        (body(EVALUATION, className="cpu", candidates=[], baseline={"model": OF_JOB}), {CLASS, JOB}),
        (
            body(DEPLOYMENT, className="cpu", model=OF_JOB, gate={"evaluationRef": {"name": "router-eval"}}),
            {CLASS, JOB, EVALUATION},
        ),
    ],
)
def test_what_an_object_refers_to(parent: dict[str, Any], expected: set[ObjectKey]) -> None:
    (kind,) = [kind for kind in KINDS if kind.name == parent["kind"]]
    assert kind.references(parent) == expected


class RecordingQueue(WorkQueue[ObjectKey]):
    """Keeps what is asked for later."""

    def __init__(self) -> None:
        super().__init__()
        self.delays: dict[ObjectKey, float] = {}

    def add_after(self, key: ObjectKey, delay_seconds: float) -> None:
        if delay_seconds > 0:
            self.delays[key] = delay_seconds
        else:
            self.add(key)


class Operator:
    """The handlers of the watches."""

    def __init__(self) -> None:
        self.queue = RecordingQueue()
        self.finished: set[str] = set()
        handlers = watches.handlers(self.queue, References(), KINDS, lambda _, __, name: name in self.finished)
        self.parent: Any = handlers[FINE_TUNE_JOBS]
        self.child: Any = handlers[PODS]

    async def woken(self) -> set[ObjectKey]:
        """What was queued, or will be in at most a second."""
        keys = set(self.queue.delays)
        self.queue.delays.clear()
        while self.queue.waiting():
            key, _ = await self.queue.get() or pytest.fail("the queue is shut down")
            self.queue.done(key)
            keys.add(key)
        return keys


@pytest.fixture
async def operator() -> Operator:
    """Every kind is there, and its first events are handled."""
    operator = Operator()
    for parent in (
        body(CLASS),
        body(JOB, className="cpu"),
        body(EVALUATION, candidates=[{"name": "tuned", "model": OF_JOB}]),
        body(DEPLOYMENT, className="cpu", gate={"evaluationRef": {"name": "router-eval"}}),
    ):
        operator.parent(parent, None, False)
    await operator.woken()
    return operator


@pytest.mark.parametrize("type", ["MODIFIED", "DELETED", "ADDED"])
async def test_a_change_wakes_the_object_and_what_refers_to_it(operator: Operator, type: str) -> None:
    operator.parent(body(JOB, className="cpu"), type, False)
    assert await operator.woken() == {JOB, EVALUATION}
    operator.parent(body(EVALUATION), type, False)
    assert await operator.woken() == {EVALUATION, DEPLOYMENT}


async def test_a_class_wakes_what_names_it(operator: Operator) -> None:
    operator.parent(body(CLASS), "DELETED", False)
    assert await operator.woken() == {CLASS, JOB, DEPLOYMENT}
    operator.parent(body(CLASS), "ADDED", False)
    assert await operator.woken() == {CLASS, JOB, DEPLOYMENT}


DEFAULT_ONE, ANOTHER = {"finetune.dev/is-default-class": "true"}, {"note": "a"}


@pytest.mark.parametrize(
    ("before", "type", "after", "woken"),
    [
        (None, "ADDED", DEFAULT_ONE, True),
        (None, "ADDED", ANOTHER, False),
        (ANOTHER, "MODIFIED", DEFAULT_ONE, True),
        (DEFAULT_ONE, "MODIFIED", ANOTHER, True),
        (DEFAULT_ONE, "MODIFIED", {**DEFAULT_ONE, "note": "b"}, False),
        (ANOTHER, "MODIFIED", {"note": "b"}, False),
        (DEFAULT_ONE, "DELETED", DEFAULT_ONE, True),
        (DEFAULT_ONE, "DELETED", ANOTHER, True),
        (ANOTHER, "DELETED", ANOTHER, False),
    ],
)
async def test_what_names_no_class_is_woken_when_the_default_has_changed(
    operator: Operator, before: dict[str, str] | None, type: str, after: dict[str, str], woken: bool
) -> None:
    other = ObjectKey("FineTuneClass", "", "other")
    if before is not None:
        operator.parent(body(other, before), "ADDED", False)
        await operator.woken()
    operator.parent(body(other, after), type, False)
    assert (EVALUATION in await operator.woken()) is woken


async def test_of_a_class_its_spec_wakes_who_names_it_and_its_status_nobody(operator: Operator) -> None:
    changed = body(CLASS)
    changed["metadata"]["generation"] = 2
    operator.parent(changed, "MODIFIED", False)
    assert await operator.woken() == {CLASS, JOB, DEPLOYMENT}
    operator.parent({**changed, "status": {"conditions": []}}, "MODIFIED", True)
    assert await operator.woken() == set()
    operator.parent({**changed, "status": {"conditions": [{}]}}, "MODIFIED", False)
    assert await operator.woken() == {CLASS}


async def test_a_finished_object_is_woken_behind_all_other_work(operator: Operator) -> None:
    """Each costs requests, and a class may have thousands."""
    operator.finished.add(JOB.name)
    operator.parent({**body(CLASS), "metadata": {**body(CLASS)["metadata"], "generation": 2}}, "MODIFIED", False)
    assert len(operator.queue) == 1, "the class"
    assert set(operator.queue.waiting()) == {CLASS, JOB, DEPLOYMENT}


async def test_who_no_longer_refers_is_no_longer_woken(operator: Operator) -> None:
    operator.parent(body(DEPLOYMENT, className="gpu"), "MODIFIED", False)
    await operator.woken()
    operator.parent(body(CLASS), "DELETED", False)
    assert DEPLOYMENT not in await operator.woken()


@pytest.mark.parametrize(
    ("annotation", "woken"),
    [("FineTuneJob/router", {JOB}), ("Nonsense/router", set()), ("FineTuneJob/../x", set()), (None, set())],
)
async def test_a_child_wakes_its_parent_and_a_stranger_nobody(
    operator: Operator, annotation: str | None, woken: set[ObjectKey]
) -> None:
    annotations = {} if annotation is None else {"finetune.dev/owner": annotation}
    metadata: dict[str, Any] = {"name": "p", "namespace": "team-a", "annotations": annotations}
    operator.child({"metadata": metadata}, "MODIFIED", False)
    assert operator.queue.delays == {}, "a Pod that was made by hand is a stranger's"
    metadata["ownerReferences"] = [controlled_by("Job", "router-train", "u")]
    operator.child({"metadata": metadata}, "MODIFIED", False)
    assert operator.queue.delays == dict.fromkeys(woken, watches.CHILD_SECONDS), "a burst of events is looked at once"
    assert await operator.woken() == woken


@pytest.mark.parametrize("is_ours", [True, False], ids=["our write", "somebody's write"])
async def test_a_trial_wakes_its_sweep_and_is_woken_by_what_its_sweep_writes(operator: Operator, is_ours: bool) -> None:
    trial = body(JOB, {"finetune.dev/owner": "FineTuneSweep/search"})
    trial["metadata"]["ownerReferences"] = [controlled_by("FineTuneSweep", "search", "u")]
    operator.parent(trial, "MODIFIED", is_ours)
    sweep = ObjectKey("FineTuneSweep", "team-a", "search")
    assert operator.queue.delays == {sweep: watches.CHILD_SECONDS}
    assert await operator.woken() == {JOB, EVALUATION, sweep}


async def test_a_trials_own_status_wakes_its_sweep_and_not_the_trial(operator: Operator) -> None:
    """Else each would be looked at twice, and a finished one, of which nothing is kept, be read again."""
    trial = body(JOB, {"finetune.dev/owner": "FineTuneSweep/search"})
    trial["metadata"] |= {"ownerReferences": [controlled_by("FineTuneSweep", "search", "u")], "generation": 2}
    operator.parent({**trial, "status": {"observedGeneration": 2}}, "MODIFIED", True)
    assert JOB not in await operator.woken()
    operator.parent({**trial, "status": {"observedGeneration": 1}}, "MODIFIED", True)
    assert JOB in await operator.woken()


async def test_what_we_write_to_a_job_of_nobodys_does_not_wake_it(operator: Operator) -> None:
    operator.parent(body(JOB, className="cpu"), "MODIFIED", True)
    assert await operator.woken() == {EVALUATION}


def child_body(kind: str, **status: Any) -> dict[str, Any]:
    metadata = {
        "name": "router-train",
        "namespace": "team-a",
        "uid": "8d0c",
        "creationTimestamp": "2026-11-22T12:00:00Z",
        "annotations": {"finetune.dev/owner": "FineTuneJob/router"},
        "ownerReferences": [controlled_by("Job" if kind == "Pod" else "FineTuneJob", "router", "u")],
    }
    return {"kind": kind, "metadata": metadata, "status": status}


COMPLETE = [{"type": "Complete", "status": "True", "lastTransitionTime": "2026-11-22T12:00:09Z"}]


@pytest.mark.parametrize(
    ("before", "after", "type", "woken"),
    [
        (child_body("Job", active=1), child_body("Job", active=1, ready=1), "MODIFIED", False),
        (child_body("Job", active=1), child_body("Job", conditions=COMPLETE), "MODIFIED", True),
        (child_body("Pod", phase="Running"), child_body("Pod", phase="Running", podIP="10.0.0.1"), "MODIFIED", False),
        (child_body("Pod", phase="Running"), child_body("Pod", phase="Failed"), "MODIFIED", True),
        (child_body("Pod", phase="Running"), child_body("Pod", phase="Running"), "DELETED", True),
        (child_body("Pod", phase="Running"), child_body("Pod", phase="Failed"), None, False),
        (child_body("Deployment", replicas=1), child_body("Deployment", replicas=1), "MODIFIED", True),
    ],
    ids=["a count", "its end", "an address", "a Pod's end", "its going", "the first list", "a kind without a view"],
)
async def test_a_child_wakes_its_parent_when_it_shows_something_new(
    operator: Operator, before: dict[str, Any], after: dict[str, Any], type: str | None, woken: bool
) -> None:
    operator.child(before, "ADDED", False)
    await operator.woken()
    operator.child(after, type, False)
    assert await operator.woken() == ({JOB} if woken else set())


async def test_a_child_made_again_under_its_name_wakes_its_parent(operator: Operator) -> None:
    operator.child(child_body("Pod", phase="Running"), "ADDED", False)
    operator.child(child_body("Pod", phase="Running"), "DELETED", False)
    await operator.woken()
    operator.child(child_body("Pod", phase="Running"), "ADDED", False)
    assert await operator.woken() == {JOB}


@pytest.mark.parametrize("type", ["MODIFIED", "ADDED"])
async def test_our_own_write_wakes_nobody_but_what_refers_to_it(operator: Operator, type: str) -> None:
    operator.parent(body(JOB, className="cpu"), type, True)
    assert await operator.woken() == {EVALUATION}


keys = st.builds(ObjectKey, st.sampled_from(["FineTuneJob", "Evaluation"]), st.just("n"), st.sampled_from("abc"))


@given(st.lists(st.tuples(keys, st.frozensets(keys, max_size=3)), max_size=12))
def test_references_hold_the_newest_of_each_object(updates: list[tuple[ObjectKey, frozenset[ObjectKey]]]) -> None:
    references = References()
    for source, targets in updates:
        references.update(source, targets)
    newest = dict(updates)
    for target in {target for _, targets in updates for target in targets}:
        assert references.referrers(target) == {source for source, targets in newest.items() if target in targets}


def test_only_our_children_are_watched() -> None:
    managed = "app.kubernetes.io/managed-by=finetune-operator"
    children = {
        "jobs": managed,
        "pods": managed,
        "deployments": managed,
        "services": f"{managed},finetune.dev/role=serve",
        "configmaps": f"{managed},finetune.dev/role=serve",
        "poddisruptionbudgets": f"{managed},finetune.dev/role=serve",
    }
    found = {resource.plural: label_selector(selector) for resource, selector in watches.selectors(KINDS).items()}
    assert found == {**children, **{kind.resource.plural: "" for kind in KINDS}}


async def test_what_decides_about_an_object_is_known_before_it_is_looked_at() -> None:
    """Children, or what it made before the operator started would be looked for in vain; and what it refers to."""
    first, *then = watches.informers(FakeKube(), Cache({}, "owner"), WorkQueue(), KINDS, 600.0, WHOLE.reads)
    assert [[informer.resource.plural for informer in group] for group in then] == [
        ["datasets"],
        ["finetunejobs"],
        ["evaluations"],
        ["modeldeployments"],
        ["finetunesweeps"],
    ]
    listed = [informer.resource for group in (first, *then) for informer in group]
    assert len(listed) == len(set(listed))
    assert set(listed) == watches.selectors(KINDS).keys()
