"""The container of an evaluation's Pod in which the code of Python graders runs: it has nothing worth taking."""

from __future__ import annotations

from finetune_api.finetuneclass import FineTuneClassSpec
from finetune_api.pod_contracts.run import PYTHON_SANDBOX_DIRECTORY, PYTHON_SANDBOX_SOCKET
from finetune_operator.kube.resources import Object
from finetune_operator.pods.builders import container_security_context
from finetune_operator.pods.observed import SANDBOX_CONTAINER

SANDBOX_USER_ID = 65533
"""Not the user of other containers; the group is the same, so that the evaluation may connect to the socket."""
_SOCKET_VOLUME, _SCRATCH_VOLUME = "python-sandbox", "python-scratch"
_SOCKET_MOUNT = {"name": _SOCKET_VOLUME, "mountPath": PYTHON_SANDBOX_DIRECTORY}
_SCRATCH = "256Mi"
_MEMORY = "2560Mi"
"""2 GiB for the grader, which its process is limited to, the files that it writes, and the server."""


def add_python_sandbox(template: Object, class_spec: FineTuneClassSpec) -> None:
    """Add the container to a Pod template.

    The trainer's container gets the socket and nothing else. It is a native sidecar: started before the trainer's
    container, started again if it is killed, and stopped with it by the kubelet.
    """
    spec = template["spec"]
    spec["initContainers"] = [*spec.get("initContainers", []), _container(class_spec)]
    spec["volumes"] += [
        {"name": _SOCKET_VOLUME, "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}},
        # In memory, where a full one fails a write, rather than having the Pod evicted.
        {"name": _SCRATCH_VOLUME, "emptyDir": {"medium": "Memory", "sizeLimit": _SCRATCH}},
    ]
    spec["containers"][0]["volumeMounts"].append({**_SOCKET_MOUNT, "readOnly": True})


def _container(class_spec: FineTuneClassSpec) -> Object:
    """No environment, no Secret, no token; the class's own variables are none of its business either."""
    requests = {"cpu": "100m", "memory": _MEMORY, "ephemeral-storage": "64Mi"}
    return {
        "name": SANDBOX_CONTAINER,
        "image": class_spec.images.trainer,
        "restartPolicy": "Always",
        "args": ["python-sandbox", PYTHON_SANDBOX_SOCKET],
        "resources": {"requests": requests, "limits": {**requests, "cpu": "2"}},
        "securityContext": {**container_security_context(), "runAsUser": SANDBOX_USER_ID},
        "volumeMounts": [_SOCKET_MOUNT, {"name": _SCRATCH_VOLUME, "mountPath": "/tmp"}],  # noqa: S108
    }
