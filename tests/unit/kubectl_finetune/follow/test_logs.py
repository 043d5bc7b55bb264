"""`logs`: whose log it is."""

from __future__ import annotations

import pytest

from finetune_view.children import Pod, sorted_pods
from finetune_view.fields import Object
from finetune_view.log_choice import NoPodsError, Wanted, chosen, kept_log, shown_container, shown_instead
from finetune_view.next_step import next_steps
from tests.unit.kubectl_finetune.cluster_objects import FAILED, TRAINING, condition, pod, seen

PODS = sorted_pods(
    [
        pod("router-train-2", 1, seconds=100),
        pod("router-train-2", 0, seconds=101),
        pod("router-preflight-9", role="preflight", seconds=900),
        pod("router-train-1", 0, seconds=500),
        pod("router-train-1", 1, seconds=500),
    ]
)


def names(wanted: Wanted, pods: list[Pod] = PODS) -> list[str]:
    return [found.name.removesuffix("-abcde") for found in chosen(seen(TRAINING), pods, wanted)]


def test_rank_0_of_the_newest_attempt_is_shown_unless_something_else_is_asked_for() -> None:
    assert names(Wanted()) == ["router-train-2-0"]
    assert names(Wanted(every=True)) == ["router-train-2-0", "router-train-2-1"]
    assert names(Wanted(previous=True)) == ["router-train-1-0"]
    assert names(Wanted(role="preflight")) == ["router-preflight-9-0"]
    assert names(Wanted(), [one for one in PODS if one.role == "preflight"]) == ["router-preflight-9-0"]


def test_each_preflight_pod_without_a_job_is_a_try_of_its_own() -> None:
    """The names of the tries tell nothing about their order."""
    tries = {"router-preflight-a": 100, "router-preflight-b": 900, "router-preflight-c": 500}
    made = [pod(name, role="preflight", seconds=seconds) for name, seconds in tries.items()]
    for one in made:
        del one["metadata"]["labels"]["batch.kubernetes.io/job-name"]
        one["metadata"]["ownerReferences"] = [{"kind": "FineTuneJob", "name": "router", "controller": True}]
    pods = sorted_pods(made)
    assert names(Wanted(role="preflight"), pods) == ["router-preflight-a-0"]
    assert names(Wanted(role="preflight", previous=True), pods) == ["router-preflight-c-0"]


def test_a_rank_is_found_on_its_node() -> None:
    """Two nodes with four processes each."""
    ranks = {rank: names(Wanted(rank=rank)) for rank in (0, 3, 4, 7)}
    first, second = ["router-train-2-0"], ["router-train-2-1"]
    assert ranks == {0: first, 3: first, 4: second, 7: second}
    with pytest.raises(NoPodsError, match=r"rank 8 is on node 2.* nodes 0, 1"):
        names(Wanted(rank=8))


def test_a_pod_that_is_gone_is_said_to_be() -> None:
    with pytest.raises(NoPodsError, match="no train Pods"):
        names(Wanted(), [])
    with pytest.raises(NoPodsError, match="of an earlier try"):
        names(Wanted(previous=True), [one for one in PODS if one.job == "router-train-2"])
    with pytest.raises(NoPodsError, match="on node 1, and the Pod of that node does not exist"):
        names(Wanted(rank=4), [one for one in PODS if one.index == 0])


WAITING = {"phase": "Validating", "conditions": [condition("Ready", "False", "WaitingForModel", "FineTuneJob a runs.")]}


def test_what_only_waits_has_no_log_yet_and_says_why() -> None:
    with pytest.raises(NoPodsError, match=r"none of its Pods has started yet. FineTuneJob a runs\."):
        chosen(seen(WAITING), [], Wanted())
    assert not any("logs" in step for step in next_steps(seen(WAITING)))
    validating = {"phase": "Validating", "conditions": [condition("Ready", "False", "Validating", "Preflight.")]}
    for begun in (validating, {**WAITING, "preflight": {"number": 1}}, TRAINING):
        assert any("logs" in step for step in next_steps(seen(begun)))
        with pytest.raises(NoPodsError, match="any more"):
            chosen(seen(begun), [], Wanted())


FETCHING = {"name": "fetch", "state": {"running": {}}}
CRASHED = {"name": "fetch", "state": {"waiting": {"reason": "CrashLoopBackOff"}}}
FETCHED = {"name": "fetch", "state": {"terminated": {"exitCode": 0}}}


def server(fetch: Object) -> Object:
    """A served model's Pod, with a sidecar that a policy injected before ours."""
    made = pod("chat", role="serve")
    made["spec"] = {"initContainers": [{"name": "fetch"}], "containers": [{"name": "istio-proxy"}, {"name": "server"}]}
    made["status"]["initContainerStatuses"] = [{"name": "istio-init", "state": {}}, fetch]
    return made


@pytest.mark.parametrize(("fetch", "shown"), [(FETCHING, "fetch"), (CRASHED, "fetch"), (FETCHED, "server")])
def test_a_pod_that_does_not_serve_yet_shows_the_log_of_what_fetches_its_model(fetch: Object, shown: str) -> None:
    pods = sorted_pods([server(fetch)])
    assert shown_container(pods) == shown
    told = shown_instead(seen(TRAINING), pods, Wanted())
    assert (told or "server").endswith("container fetch, which fetches the model." if shown == "fetch" else "server")


def test_of_several_pods_the_log_of_those_that_serve_is_shown() -> None:
    assert shown_container(sorted_pods([server(FETCHING), server(FETCHED)])) == "server"


def test_what_is_left_of_the_log_is_in_the_status() -> None:
    assert kept_log(seen(FAILED)).endswith("line 29\nline 30")
    assert kept_log(seen(TRAINING)) == ""
