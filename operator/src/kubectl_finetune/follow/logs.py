"""`logs`: the log of the right Pod of a run, or what is left of it when the Pod is gone."""

from __future__ import annotations

import subprocess
from collections.abc import Callable

from finetune_view.children import Pod
from finetune_view.fields import clean
from finetune_view.log_choice import NoPodsError, Wanted, chosen, shown_container
from finetune_view.next_step import command
from finetune_view.object_view import ObjectView
from finetune_view.resource import JOB_NAME_LABEL
from kubectl_finetune.cluster.kubectl import Kubectl, error_of
from kubectl_finetune.errors import ExitCode, NotFoundError, PluginError

END_SECONDS = 5


def pods_to_show(view: ObjectView, pods: list[Pod], wanted: Wanted) -> list[Pod]:
    """The Pods whose logs are wanted. Raises NotFoundError."""
    try:
        return chosen(view, pods, wanted)
    except NoPodsError as error:
        every = " --all shows every Pod that does." if wanted.rank is not None and pods else ""
        raise NotFoundError(f"{error}{every}") from None


def show_logs(
    kubectl: Kubectl,
    view: ObjectView,
    pods: list[Pod],
    say: Callable[[str], None],
    *,
    follow: bool = False,
    tail: int = -1,
) -> None:
    """Print the logs of these Pods, with the Pod's name before each line if there are several. Raises PluginError."""
    words = ["logs", "--container", shown_container(pods), f"--tail={tail}"]
    if follow:
        words.append("--follow")
    if len(pods) == 1:
        words += [pods[0].name]
    else:
        of_try = f"{JOB_NAME_LABEL}={pods[0].job}" if pods[0].job else ",".join(_own_labels(pods[0]))
        words += ["-l", of_try, "--prefix", "--ignore-errors", f"--max-log-requests={max(5, len(pods))}"]
    process = kubectl.start(*words)
    assert process.stdout is not None
    try:
        for line in process.stdout:
            say(clean(line.rstrip("\r\n").rpartition("\r")[2], lines=True))  # of a progress bar, its last state
    except BaseException:
        process.kill()
        raise
    _check_end(process, view)


def _check_end(process: subprocess.Popen[str], view: ObjectView) -> None:
    assert process.stderr is not None
    stderr = process.stderr.read()
    if process.wait(END_SECONDS) == 0:
        return
    error = error_of(stderr)
    if "waiting to start" in str(error):
        error = PluginError(f"{error}. Why it waits: {command(view, 'events')}", ExitCode.NOT_FOUND)
    raise error


def _own_labels(pod: Pod) -> list[str]:
    labels = pod.fields.at("metadata", "labels").items()
    return [f"{name}={value.text()}" for name, value in labels if name.startswith("finetune.dev/")]
