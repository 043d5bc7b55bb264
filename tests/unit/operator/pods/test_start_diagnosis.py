"""What keeps Pods from starting, by their status and by Events, and that it clears by itself."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from finetune_api.conditions import Reason
from finetune_operator.pods.observed import job_view, pod_view
from finetune_operator.pods.start_diagnosis import diagnose_start, refusal
from finetune_operator.pods.warning_events import WarningEvent
from tests.unit.operator.pod_objects import (
    CREATING,
    GATED,
    JOB_UID,
    NAME,
    NOW,
    POD_UID,
    UNSCHEDULABLE,
    container,
    job_object,
    pending,
    pod_object,
    waiting,
)

WITHOUT_CLAIM = {
    **UNSCHEDULABLE,
    "message": '0/3 nodes are available: persistentvolumeclaim "models" not found.',
}


@pytest.mark.parametrize(
    ("status", "reason", "told"),
    [
        ({}, None, ""),
        ({"phase": "Pending"}, None, ""),
        (pending(CREATING), None, ""),
        (pending(container(waiting=waiting("PodInitializing"))), None, ""),
        ({"phase": "Pending", "conditions": [GATED]}, None, ""),
        (
            {"phase": "Running", "containerStatuses": [container(running={"startedAt": "2026-11-22T11:59:00Z"})]},
            None,
            "",
        ),
        (
            {"phase": "Pending", "conditions": [UNSCHEDULABLE]},
            Reason.UNSCHEDULABLE,
            "3 Insufficient nvidia.com/gpu. preemption: 0/3 nodes are available: 3 No preemption victims found for "
            "incoming pod. Free or add nodes, or lower what the FineTuneClass requests.",
        ),
        (
            {"phase": "Pending", "conditions": [WITHOUT_CLAIM]},
            Reason.VOLUME_NOT_MOUNTED,
            'persistentvolumeclaim "models" not found. Create that PersistentVolumeClaim in this namespace',
        ),
        (
            pending(
                container(
                    waiting=waiting(
                        "CreateContainerConfigError",
                        'container has runAsNonRoot and image will run as root (pod: "x", container: trainer)',
                    )
                )
            ),
            Reason.POD_REJECTED,
            "CreateContainerConfigError: container has runAsNonRoot",
        ),
        (
            pending(container(waiting=waiting("RunContainerError", 'exec: "finetune-trainer": not found'))),
            Reason.POD_REJECTED,
            "RunContainerError",
        ),
        (
            pending(
                container(
                    waiting=waiting(
                        "ErrImagePull",
                        'failed to pull and unpack image "example.com/trainer:1": not found',
                    )
                )
            ),
            Reason.IMAGE_PULL_FAILED,
            "example.com/trainer:1",
        ),
        (
            pending(container(waiting=waiting("ImagePullBackOff", 'Back-off pulling image "example.com/trainer:1"'))),
            Reason.IMAGE_PULL_FAILED,
            "Check spec.images of the FineTuneClass",
        ),
        (
            pending(container(waiting=waiting("InvalidImageName"))),
            Reason.IMAGE_PULL_FAILED,
            "can't pull its image: InvalidImageName",
        ),
        (
            {
                **pending(container("server", waiting=waiting("PodInitializing"))),
                "initContainerStatuses": [container("fetch", waiting=waiting("ErrImagePull", "not found"))],
            },
            Reason.IMAGE_PULL_FAILED,
            "not found",
        ),
    ],
    ids=[
        "no status yet",
        "not seen by the scheduler",
        "creating",
        "initializing",
        "held by a scheduling gate",
        "running",
        "no GPU free",
        "no such volume claim",
        "image runs as root",
        "no such program",
        "no such image",
        "image pull back-off",
        "bad image name",
        "init container without image",
    ],
)
def test_what_keeps_a_pod_from_starting(status: dict[str, Any], reason: Reason | None, told: str) -> None:
    found = diagnose_start(None, [pod_view(pod_object(status))], (), NOW)
    assert (found.reason if found else None) == reason
    if found is not None:
        assert NAME in found.message
        assert told in found.message


@pytest.mark.parametrize(("seconds", "named"), [(29, False), (30, True), (3600, True)])
def test_a_pod_is_unschedulable_after_half_a_minute(seconds: int, named: bool) -> None:
    """A cluster autoscaler is given a moment."""
    view = pod_view(pod_object({"phase": "Pending", "conditions": [UNSCHEDULABLE]}))
    since = datetime(2026, 11, 22, 11, 59, tzinfo=UTC)
    assert (diagnose_start(None, [view], (), since + timedelta(seconds=seconds)) is not None) is named


@pytest.mark.parametrize(("seconds", "named"), [(29, False), (30, True)])
def test_a_pod_that_a_scheduling_gate_holds_back_is_queued_after_half_a_minute(seconds: int, named: bool) -> None:
    """Kueue with its integration of Pods adds one to each Pod of a namespace, if it is told to."""
    body = pod_object({"phase": "Pending", "conditions": [GATED]})
    body["spec"] = {**body.get("spec", {}), "schedulingGates": [{"name": "kueue.x-k8s.io/admission"}]}
    view = pod_view(body)
    assert view.created is not None
    found = diagnose_start(None, [view], (), view.created + timedelta(seconds=seconds))
    assert (found is not None) is named
    if found is not None:
        assert (found.readiness.reason, found.readiness.stalled) == (Reason.QUEUED, False)
        assert "the scheduling gate kueue.x-k8s.io/admission" in found.message


# What Events tell of a Pod that has a node.

NO_SECRET = 'MountVolume.SetUp failed for volume "storage-credentials" : secret "s3-credentials" not found'
NO_KEY = (
    'MountVolume.SetUp failed for volume "storage-credentials" : references non-existent secret key: AWS_ACCESS_KEY_ID'
)
NO_MODEL_KEY = 'MountVolume.SetUp failed for volume "model-key-judge" : secret "openai" not found'
NO_CONFIG_MAP = 'MountVolume.SetUp failed for volume "run" : configmap "router-train-0f3c2a91" not found'
MULTI_ATTACH = 'Multi-Attach error for volume "pvc-1" Volume is already exclusively attached to one node'
NO_NETWORK = "Failed to create pod sandbox: plugin type=calico failed (add): connection refused"


def warning(reason: str, message: str, seconds: int, subject: str = POD_UID) -> WarningEvent:
    """First said so many seconds ago."""
    return WarningEvent(subject, reason, message, NOW - timedelta(seconds=seconds))


@pytest.mark.parametrize(
    ("said", "reason", "told"),
    [
        (
            warning("FailedMount", NO_SECRET, 0),
            Reason.SECRET_NOT_FOUND,
            'secret "s3-credentials" not found. Create that Secret in this namespace with the keys AWS_ACCESS_KEY_ID',
        ),
        (warning("FailedMount", NO_KEY, 0), Reason.SECRET_NOT_FOUND, "non-existent secret key: AWS_ACCESS_KEY_ID"),
        (
            warning("FailedMount", NO_MODEL_KEY, 0),
            Reason.SECRET_NOT_FOUND,
            f"the key of the model 'judge' of the FineTuneClass: {NO_MODEL_KEY}. Create that Secret in this namespace "
            "with the key API_KEY",
        ),
        (warning("FailedMount", NO_CONFIG_MAP, 29), None, ""),
        (warning("FailedMount", NO_CONFIG_MAP, 30), Reason.VOLUME_NOT_MOUNTED, "Create what is missing"),
        (warning("FailedAttachVolume", MULTI_ATTACH, 30), Reason.VOLUME_NOT_MOUNTED, "exclusively attached"),
        (warning("FailedCreatePodSandBox", NO_NETWORK, 29), None, ""),
        (warning("FailedCreatePodSandBox", NO_NETWORK, 30), Reason.POD_REJECTED, "plugin type=calico"),
        (warning("FailedMount", NO_SECRET, 99, subject="another-pod"), None, ""),
    ],
    ids=[
        "no Secret",
        "a key is missing in the Secret",
        "no Secret with a model's key",
        "no ConfigMap yet",
        "no ConfigMap",
        "a disk on another node",
        "a network that starts",
        "no network",
        "of another Pod",
    ],
)
def test_what_the_kubelet_said_of_a_pod(said: WarningEvent, reason: Reason | None, told: str) -> None:
    found = diagnose_start(None, [pod_view(pod_object(pending(CREATING)))], [said], NOW)
    assert (found.reason if found else None) == reason
    if found is not None:
        assert NAME in found.message
        assert told in found.message
        assert found.since == said.since


def test_what_was_said_of_a_pod_does_not_count_once_it_runs() -> None:
    running = {"phase": "Running", "containerStatuses": [container(running={"startedAt": "2026-11-22T11:59:00Z"})]}
    assert diagnose_start(None, [pod_view(pod_object(running))], [warning("FailedMount", NO_SECRET, 60)], NOW) is None


# What Events tell of a Job that makes no Pods.

QUOTA = (
    'Error creating: pods "router-train-0f3c2a91-0-x7k2p" is forbidden: exceeded quota: team, requested: '
    "limits.memory=8Gi, used: limits.memory=60Gi, limited: limits.memory=64Gi"
)


@pytest.mark.parametrize(
    ("message", "reason", "told"),
    [
        (QUOTA, Reason.QUOTA_EXCEEDED, "exceeded quota: team, requested: limits.memory=8Gi, used: limits.memory=60Gi"),
        (QUOTA, Reason.QUOTA_EXCEEDED, "Raise it, wait until other Pods end, or lower what the FineTuneClass requests"),
        (
            'Error creating: pods "x" is forbidden: failed quota: team: must specify limits.cpu for: trainer',
            Reason.POD_REJECTED,
            "A LimitRange in the namespace can supply the defaults",
        ),
        (
            'Job.batch "x" is invalid: spec.template.annotations: Too long: may not be more than 262144 bytes',
            Reason.POD_REJECTED,
            "shorten spec.dataset, or storage.caBundle, sources or podMetadata of the FineTuneClass",
        ),
        (
            'Error creating: pods "x" is forbidden: violates PodSecurity "restricted:latest": privileged',
            Reason.POD_REJECTED,
            "check what a webhook adds",
        ),
        (
            'Error creating: pods "x-0-" is forbidden: error looking up service account team-a/trainer: '
            'serviceaccount "trainer" not found',
            Reason.POD_REJECTED,
            "Create that ServiceAccount",
        ),
        (
            'Error creating: pods "x" is forbidden: no PriorityClass with name batch was found',
            Reason.POD_REJECTED,
            "scheduling.priorityClassName",
        ),
        (
            'Error creating: pods "x" is forbidden: pod rejected: RuntimeClass "gvisor" not found',
            Reason.POD_REJECTED,
            "scheduling.runtimeClassName",
        ),
        (
            'Error creating: admission webhook "policy.example.com" denied the request: no label team',
            Reason.POD_REJECTED,
            'admission webhook "policy.example.com" denied the request: no label team',
        ),
    ],
)
def test_why_a_job_makes_no_pods(message: str, reason: Reason, told: str) -> None:
    said = warning("FailedCreate", message, 10, subject=JOB_UID)
    found = diagnose_start(job_view(job_object()), [], [said], NOW)
    assert found is not None
    assert (found.reason, found.since) == (reason, said.since)
    assert told in found.message
    assert refusal(message).reason is reason


@pytest.mark.parametrize(
    ("job", "pods", "named"),
    [
        (job_object(), [], True),
        (job_object(), [pod_object(pending(CREATING))], False),
        (job_object(parallelism=2), [pod_object(pending(CREATING))], True),
        (job_object(deletionTimestamp="2026-11-22T12:00:00Z"), [], False),
        (job_object(suspend=True), [], False),
    ],
    ids=["has none", "has its Pod", "has one of two", "is deleted", "is suspended by a queue"],
)
def test_a_quota_is_named_while_the_job_lacks_pods(
    job: dict[str, Any], pods: list[dict[str, Any]], named: bool
) -> None:
    said = warning("FailedCreate", QUOTA, 10, subject=JOB_UID)
    found = diagnose_start(job_view(job), [pod_view(pod) for pod in pods], [said], NOW)
    assert (found is not None) is named


# Waiting for room is no stall.

ROOM_LATER = "0/3 nodes are available: 1 Insufficient cpu, 2 node(s) didn't match Pod's node affinity/selector. "
NONE_EVER = "0/3 nodes are available: 1 Insufficient cpu, 2 node(s) had untolerated taint {gpu: true}. "


@pytest.mark.parametrize(
    ("words", "waits"),
    [
        (
            ROOM_LATER + "preemption: 0/3 nodes are available: 1 No preemption victims found for incoming pod, "
            "2 Preemption is not helpful for scheduling.",
            True,
        ),
        (ROOM_LATER + "preemption: not eligible due to preemptionPolicy=Never.", True),
        ("0/1 nodes are available: 1 Too many pods. preemption: not eligible due to preemptionPolicy=Never.", True),
        (NONE_EVER + "preemption: 0/3 nodes are available: 3 Preemption is not helpful for scheduling.", False),
        ("0/2 nodes are available: 2 node(s) didn't match Pod's node affinity/selector.", False),
        ("no nodes available to schedule pods", False),
    ],
    ids=["another's room", "never preempts", "full of Pods", "too small", "wrong selector", "no node"],
)
def test_room_that_others_give_back_is_waited_for_and_nothing_else(words: str, waits: bool) -> None:
    status = {"phase": "Pending", "conditions": [{**UNSCHEDULABLE, "message": words}]}
    found = diagnose_start(None, [pod_view(pod_object(status))], (), NOW)
    assert found is not None
    assert (found.readiness.stalled, found.readiness.reason) == (
        not waits,
        Reason.QUEUED if waits else Reason.UNSCHEDULABLE,
    )
    assert words in found.readiness.message


@pytest.mark.parametrize(
    ("words", "placement", "room"),
    [
        ("0/2 nodes are available: 2 node(s) didn't match Pod's node affinity/selector.", True, False),
        ("0/2 nodes are available: 2 node(s) had untolerated taint {gpu: true}.", True, False),
        (NONE_EVER, True, True),
        ("0/2 nodes are available: 2 Insufficient nvidia.com/gpu.", False, True),
    ],
    ids=["selector", "taint", "taint and size", "size"],
)
def test_where_labels_or_taints_keep_a_pod_away_the_class_s_scheduling_is_named(
    words: str, placement: bool, room: bool
) -> None:
    status = {"phase": "Pending", "conditions": [{**UNSCHEDULABLE, "message": words}]}
    found = diagnose_start(None, [pod_view(pod_object(status))], (), NOW)
    assert found is not None
    assert ("spec.scheduling of the FineTuneClass (nodeSelector" in found.message) is placement
    assert ("ree or add nodes, or lower what" in found.message) is room


@pytest.mark.parametrize(
    ("requested", "limited", "waits"),
    [
        ("limits.memory=8Gi", "limits.memory=64Gi", True),
        ("limits.memory=80Gi", "limits.memory=64Gi", False),
        ("limits.memory=8Gi,pods=1", "limits.memory=64Gi,pods=0", False),
        ("pods=1", "pods=none", False),
    ],
)
def test_a_quota_that_others_use_up_is_waited_for(requested: str, limited: str, waits: bool) -> None:
    said = f'pods "x" is forbidden: exceeded quota: team, requested: {requested}, used: pods=0, limited: {limited}'
    assert refusal(said).waits is waits
