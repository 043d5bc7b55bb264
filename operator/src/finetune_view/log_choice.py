"""Whose log shows where a run stands, and what is left of it when the Pod is gone."""

from __future__ import annotations

from dataclasses import dataclass

from finetune_view.children import Pod
from finetune_view.next_step import command
from finetune_view.object_view import ObjectView
from finetune_view.resource import FINE_TUNE_JOB

FETCH = "fetch"
"""The init container of a served model's Pods, which fetches the model."""


class NoPodsError(LookupError):
    """The Pod whose log is wanted does not exist (any more). The message says what there is instead."""


@dataclass(frozen=True)
class Wanted:
    """Whose log. `rank` counts processes, of which a node runs several; `previous`: of the try before the newest."""

    role: str | None = None
    rank: int | None = None
    every: bool = False
    previous: bool = False


def chosen(view: ObjectView, pods: list[Pod], wanted: Wanted) -> list[Pod]:
    """The Pods whose logs are wanted: of the newest try, of rank 0. `pods` are oldest first. Raises NoPodsError."""
    role = wanted.role or _newest_role(view, pods)
    of_role = [pod for pod in pods if pod.role == role]
    tries = list(dict.fromkeys(pod.job for pod in of_role))
    if wanted.previous:
        tries = tries[:-1]
    if not pods and view.waits_for_first_pod:
        why = view.condition("Ready").message or "The operator has not looked at it yet."
        raise NoPodsError(f"{view.resource} has no log: none of its Pods has started yet. {why}")
    if not tries:
        which = "of an earlier try " if wanted.previous else ""
        raise NoPodsError(f"{view.resource} has no {role} Pods {which}(any more). {_where_else(view)}")
    of_try = [pod for pod in of_role if pod.job == tries[-1]]
    if wanted.every:
        return of_try
    if wanted.rank is None and view.kind is not FINE_TUNE_JOB:
        return of_try[-1:]
    rank = wanted.rank or 0
    index = rank // per_node(view) if role == "train" else rank
    found = [pod for pod in of_try if pod.index == index]
    if not found:
        there = ", ".join(sorted({str(pod.index) for pod in of_try}))
        raise NoPodsError(
            f"{view.resource}: rank {rank} is on node {index}, and the Pod of that node does not exist (any more). "
            f"There are Pods of nodes {there}."
        )
    return found[-1:]


def per_node(view: ObjectView) -> int:
    """Processes per Pod."""
    return max(1, view.fields.whole("spec", "parallelism", "processesPerNode") or 1)


def _newest_role(view: ObjectView, pods: list[Pod]) -> str:
    """The role that says most of those that have Pods: training, once there is any."""
    there = {pod.role for pod in pods}
    return next((role for role in reversed(view.kind.roles) if role in there), view.kind.roles[-1])


def _where_else(view: ObjectView) -> str:
    """Logs are deleted with their Pods: what has more than them."""
    # The trainer writes it with the first checkpoint.
    storage = view.status.text("storageUri") if view.status.at("checkpoints") or view.status.at("result") else ""
    kept = f" The history of the run is {storage}/events.jsonl in the storage." if storage else ""
    return f"Logs are deleted with their Pods.{kept} `{command(view, 'status')}` shows where the run stands."


def shown_instead(view: ObjectView, pods: list[Pod], wanted: Wanted) -> str | None:
    """That another log is shown than that of training or serving; None where it is the one."""
    if pods and shown_container(pods) == FETCH:
        return f"{pods[-1].name} does not serve yet: this is the log of its container {FETCH}, which fetches the model."
    if wanted.role is not None or pods[0].role != "preflight" or not view.status.at("attempt"):
        return None
    attempt = view.status.text("attempt", "number")
    return f"The Pods of attempt {attempt} are gone; this is the log of the preflight. {_where_else(view)}"


def kept_log(view: ObjectView) -> str:
    """The end of the log of the Pod that failed last, which the status has; "" if nothing failed."""
    return view.status.block("failure", "log").rstrip()


def shown_container(pods: list[Pod]) -> str:
    """The container whose log is shown of these Pods: what fetches a model, if none of them has got any further."""
    names = [container_of(pod) for pod in pods]
    return next((name for name in names if name != FETCH), FETCH)


def container_of(pod: Pod) -> str:
    """Ours, whatever a policy injected before it; the one that fetches the model until it has succeeded."""
    fetch = next((one for one in pod.fields.at("status", "initContainerStatuses") if one.text("name") == FETCH), None)
    if fetch is not None and fetch.whole("state", "terminated", "exitCode") != 0:
        return FETCH
    names = [container.text("name") for container in pod.fields.at("spec", "containers")]
    return next((name for name in names if name in ("trainer", "server")), names[0] if names else "trainer")
