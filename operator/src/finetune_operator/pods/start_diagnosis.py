"""What keeps the Pods of a Job from starting, in messages that name the fix.

Each diagnosis is recomputed at every reconciliation, so it disappears once its cause is fixed. An image that can't be
pulled for IMAGE_PULL_SECONDS fails the run.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal

from finetune_api.conditions import Reason
from finetune_api.pod_contracts.run import MODEL_KEY
from finetune_operator.core.conditions import Readiness, progressing, stalled
from finetune_operator.pods.observed import MODEL_KEY_VOLUME, JobView, PodView
from finetune_operator.pods.quantities import number_of
from finetune_operator.pods.warning_events import SANDBOX_FAILED, VOLUME_FAILURES, WarningEvent, lacks_pods

START_CHECK_SECONDS = 15
"""How often Pods that have not started are checked again: some count as blocked only after a while."""
PATIENCE_SECONDS = 30
"""How long a cluster may take to add a node, to detach a volume, or to start its network."""
_QUOTA = re.compile(r"requested: (\S+), used: \S+, limited: (\S+)")
IMAGE_PULL_SECONDS = 15 * 60
"""How long pulling an image may fail before the run does: the registry may be down, or the name wrong."""
_PLACEMENT = re.compile(r"node affinity|node selector|untolerated taint")
"""In the scheduler's message: the Pod's constraints on nodes, as opposed to the resources that it requests."""
_MODEL_KEY = re.compile(rf'volume "{MODEL_KEY_VOLUME}([^"]+)"')
_UNSTARTABLE = ("CreateContainerConfigError", "CreateContainerError", "RunContainerError")
_UNPULLABLE = ("ImagePullBackOff", "ErrImagePull", "InvalidImageName", "ErrImageNeverPull", "ImageInspectError")
_RETRIED = " It is retried automatically, within a few minutes."
"""By the controller of the Job or Deployment."""
_SUSPENDED_BY_HAND = (
    "The Job was suspended (spec.suspend of the Job), and is in no queue. Nothing starts until that is set to "
    "false, or the Job is deleted (kubectl delete job): the operator then creates it again."
)


@dataclass(frozen=True)
class StartDiagnosis:
    """Why a Pod does not start, and since when, if that is known.

    `waits`: it only waits for capacity that others will release, so there is nothing to do.
    """

    reason: Reason
    message: str
    since: datetime | None = None
    waits: bool = False

    @property
    def readiness(self) -> Readiness:
        """Queued while it only waits; otherwise Stalled."""
        if self.waits:
            return progressing(Reason.QUEUED, self.message)
        return stalled(self.reason, self.message)


def diagnose_start(
    job: JobView | None, pods: Sequence[PodView], warnings: Iterable[WarningEvent], now: datetime
) -> StartDiagnosis | None:
    """What keeps the Pods from starting, permanent causes first. `job`: None if a Deployment creates them."""
    by_subject = {warning.subject: warning for warning in warnings}
    if job is not None and (job.suspended or job.deleting):
        return None
    if job is not None and job.uid in by_subject and lacks_pods(job, pods, now):
        return replace(refusal(by_subject[job.uid].message), since=by_subject[job.uid].since)
    # A run needs only our container to start; a server's Pod is ready only when all of its containers are running.
    waiting = [pod for pod in pods if job is None or pod.started_time is None]
    found = [one for pod in waiting if (one := _diagnose_pod(pod, by_subject.get(pod.uid), now)) is not None]
    if job is not None:
        found = [_with_limit(one, now) for one in found]
    # A Pod that waits for capacity must not hide one that only a person can help.
    return next((one for one in found if not one.waits), found[0] if found else None)


def _with_limit(one: StartDiagnosis, now: datetime) -> StartDiagnosis:
    """Adds until when pulling the image is retried."""
    if one.reason != Reason.IMAGE_PULL_FAILED or image_pull_timed_out(one, now):
        return one
    return replace(one, message=f"{one.message} The run fails if this lasts {IMAGE_PULL_SECONDS // 60} minutes.")


def early_message(job: JobView | None, pods: Sequence[PodView], warnings: Iterable[WarningEvent], now: datetime) -> str:
    """What the Pods wait for before it counts as a diagnosis, with a leading space; otherwise empty."""
    if diagnose_start(job, pods, warnings, now) is not None:
        return ""
    soon = diagnose_start(job, pods, warnings, now + timedelta(seconds=PATIENCE_SECONDS))
    return "" if soon is None else f" {soon.message}"


def queued_message(job: JobView) -> str:
    """What a suspended Job waits for."""
    return waits_in(job.queue_name) if job.queue_name else _SUSPENDED_BY_HAND


def waits_in(queue: str) -> str:
    """That a Job waits in this queue of Kueue's."""
    return f"The Job is waiting for quota in queue {queue!r} (Kueue starts it)."


def image_pull_timed_out(blocked: StartDiagnosis | None, now: datetime) -> bool:
    """Whether an image could not be pulled for too long."""
    if blocked is None or blocked.reason != Reason.IMAGE_PULL_FAILED or blocked.since is None:
        return False
    return now >= blocked.since + timedelta(seconds=IMAGE_PULL_SECONDS)


def image_pull_message(blocked: StartDiagnosis) -> str:
    """The message of a run that failed because of it."""
    return f"{blocked.message} The kubelet has tried for {IMAGE_PULL_SECONDS // 60} minutes. Change runId to run again."


def refusal(message: str, retried: str = _RETRIED) -> StartDiagnosis:
    """Why the API server refused an object (`message`: of a FailedCreate Event, or of its response), and what to do.

    `retried`: when it is tried again, if the cause may pass.
    """
    message = message.removeprefix("Error creating: ")
    if "exceeded quota" in message:
        waits = _fits_the_quota(message)
        why = "is exhausted" if waits else "is too small, even while nothing else runs"
        change = "Raise it, wait until other Pods end, or" if waits else "Raise it, or"
        return StartDiagnosis(
            Reason.QUOTA_EXCEEDED,
            f"A ResourceQuota of the namespace {why}: {message}. {change} lower what the FineTuneClass requests "
            f"(resources, accelerator).{retried}",
            waits=waits,
        )
    return StartDiagnosis(
        Reason.POD_REJECTED,
        f"The API server rejects what this object needs: {message}. {_change_for(message)}",
    )


def waits_for_room(message: str) -> bool:
    """Whether, by the scheduler's message, some node could run the Pod once other Pods are gone.

    The message distinguishes nodes where preemption could help from those where it could not: a wrong selector or
    taint, or (since Kubernetes 1.33) a node that is too small.
    """
    nodes, _, preemption = message.partition("preemption:")
    asked = preemption if "nodes are available" in preemption else nodes
    return any(text in asked for text in ("No preemption victims", "Insufficient ", "Too many pods"))


def _fits_the_quota(message: str) -> bool:
    """Whether the Pod would fit into each of the quotas if nothing else used them."""
    found = _QUOTA.findall(message)
    return bool(found) and all(_fits(_quantities(requested), _quantities(limited)) for requested, limited in found)


def _fits(requested: dict[str, Decimal], limited: dict[str, Decimal]) -> bool:
    return bool(limited) and all(name in requested and requested[name] <= limit for name, limit in limited.items())


def _quantities(text: str) -> dict[str, Decimal]:
    """`pods=1,limits.memory=8Gi` as numbers; anything that is not a quantity is left out."""
    found = {}
    for part in text.strip(".,;").split(","):
        name, _, value = part.partition("=")
        with contextlib.suppress(ValueError):
            found[name] = number_of(value)
    return found


def _change_for(message: str) -> str:
    if "serviceaccount" in message and "not found" in message:
        return "Create that ServiceAccount, or change storage.serviceAccountName of the FineTuneClass."
    if "PriorityClass" in message:
        return "Create that PriorityClass, or change scheduling.priorityClassName of the FineTuneClass."
    if "RuntimeClass" in message:
        return "Create that RuntimeClass, or change scheduling.runtimeClassName of the FineTuneClass."
    if "violates PodSecurity" in message:
        return "The Pods meet the restricted level as they are created: check what a webhook adds to them."
    if "annotations: Too long" in message:
        return (
            "The run configuration is among them: shorten spec.dataset, or storage.caBundle, sources or podMetadata of "
            "the FineTuneClass."
        )
    if "failed calling webhook" in message:
        return "That webhook of the cluster has to answer again, or be removed: ask who runs it."
    if "must specify" in message:
        return "A LimitRange in the namespace can supply the defaults that its ResourceQuota requires."
    return "Change what rejects it (quota, LimitRange, webhook), or the FineTuneClass."


def _diagnose_pod(pod: PodView, warning: WarningEvent | None, now: datetime) -> StartDiagnosis | None:
    since = pod.unschedulable_since
    if since is not None and _is_over(since, now):
        return _unschedulable(pod)
    if pod.scheduling_gates and pod.created is not None and _is_over(pod.created, now):
        return _gated(pod)
    if pod.waiting_reason in _UNPULLABLE:
        return _unpullable(pod)
    if pod.waiting_reason in _UNSTARTABLE:
        whose = f"container {pod.waiting_foreign!r}, which was injected: " if pod.waiting_foreign else ""
        return _unstartable(pod, f"{whose}{pod.waiting_reason}: {pod.waiting_message}", pod.scheduled_time)
    if warning is None or pod.phase != "Pending":
        return None
    if "secret" in warning.message.lower() and _is_missing(warning.message):
        return _secret_not_found(pod, warning)
    if not _is_over(warning.since, now):
        return None
    if warning.reason in VOLUME_FAILURES:
        return StartDiagnosis(
            Reason.VOLUME_NOT_MOUNTED,
            f"Pod {pod.name} can't mount a volume: {warning.message}. Create what is missing, or repair the volume.",
            warning.since,
        )
    return _unstartable(pod, warning.message, warning.since) if warning.reason == SANDBOX_FAILED else None


def _unpullable(pod: PodView) -> StartDiagnosis:
    what = "its image"
    change = (
        "Check spec.images of the FineTuneClass, that the nodes may pull from that registry, and that the Secrets in "
        "images.pullSecretNames exist in this namespace."
    )
    if pod.waiting_foreign:
        what = f"the image of container {pod.waiting_foreign!r}, which was injected"
        change = "Find the webhook or policy that adds this container to Pods."
    message = f"Pod {pod.name} can't pull {what}: {pod.waiting_message or pod.waiting_reason}. {change}"
    return StartDiagnosis(Reason.IMAGE_PULL_FAILED, message, pod.scheduled_time)


def _gated(pod: PodView) -> StartDiagnosis:
    gates = ", ".join(pod.scheduling_gates)
    return StartDiagnosis(
        Reason.QUEUED,
        f"Pod {pod.name} is held back by the scheduling gate {gates}, which was injected. It starts once that "
        "is removed: ask whoever runs it (Kueue, if it manages Pods without a queue).",
        pod.created,
        waits=True,
    )


def _unschedulable(pod: PodView) -> StartDiagnosis:
    message = pod.unschedulable_message
    if "persistentvolumeclaim" in message.lower():
        return StartDiagnosis(
            Reason.VOLUME_NOT_MOUNTED,
            f"Pod {pod.name} is waiting for a volume: {message} Create that PersistentVolumeClaim in this namespace, "
            "or find out why it is not bound.",
            pod.unschedulable_since,
        )
    change = "Free or add nodes, or lower what the FineTuneClass requests."
    if _PLACEMENT.search(message):
        change = (
            "Where no node has the labels, or none lacks a taint: correct spec.scheduling of the FineTuneClass "
            "(nodeSelector, nodeRequirements, tolerations; of the role, where it has its own), or label or add nodes."
        )
        if "Insufficient " in message:
            change += " Where nodes are too small or full: free or add nodes, or lower what the class requests."
    if "pod affinity" in message:
        change = (
            "Where the class sets scheduling.gangTopology, all Pods of an attempt need nodes with one value of that "
            "label: add nodes there, check the label's key, or set its policy to Preferred."
        )
    return StartDiagnosis(
        Reason.UNSCHEDULABLE,
        f"Pod {pod.name} can't be scheduled: {message} {change}",
        pod.unschedulable_since,
        waits=waits_for_room(message),
    )


def _secret_not_found(pod: PodView, warning: WarningEvent) -> StartDiagnosis:
    if (model := _MODEL_KEY.search(warning.message)) is not None:
        return StartDiagnosis(
            Reason.SECRET_NOT_FOUND,
            f"Pod {pod.name} can't read the key of the model {model[1]!r} of the FineTuneClass: {warning.message}. "
            f"Create that Secret in this namespace with the key {MODEL_KEY} (`kubectl create secret generic SECRET "
            f"--from-literal={MODEL_KEY}=...`); the Pod then starts by itself.",
            warning.since,
        )
    return StartDiagnosis(
        Reason.SECRET_NOT_FOUND,
        f"Pod {pod.name} can't read its storage credentials: {warning.message}. Create that Secret in this namespace "
        "with the keys AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY; the Pod then starts automatically.",
        warning.since,
    )


def _unstartable(pod: PodView, message: str, since: datetime | None) -> StartDiagnosis:
    return StartDiagnosis(Reason.POD_REJECTED, f"The node can't start Pod {pod.name}: {message}", since)


def _is_missing(message: str) -> bool:
    return "not found" in message or "non-existent" in message


def _is_over(since: datetime, now: datetime) -> bool:
    return now >= since + timedelta(seconds=PATIENCE_SECONDS)
