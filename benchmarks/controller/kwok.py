"""kwok plays the nodes: each Pod starts and ends at once, with the termination message that our trainer would leave.

Training Pods run on for ever, but for those of the job FINISHING, which succeed. Pods that build a Dataset succeed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from benchmarks.controller.audit import KWOK
from benchmarks.controller.products import ours
from benchmarks.controller.products.product import FINISHING, Product
from e2e.cluster.binaries import binaries
from e2e.cluster.components.control_plane import ControlPlane
from e2e.cluster.machine import processes
from finetune_api.dataset import DatasetSpec, Revision, SplitStatus
from finetune_api.finetunejob import (
    CheckpointStatus,
    DatasetFindings,
    FileStatistics,
    FineTuneJobSpec,
    ModelStatus,
    Result,
)
from finetune_api.pod_contracts.outcome import DatasetReport, PreflightReport, TrainReport
from finetune_api.pod_contracts.run import run_folder
from finetune_api.pod_contracts.termination_message import to_termination_message
from finetune_operator.dataset import run_identity as dataset_run_identity
from finetune_operator.finetunejob.run_identity import run_digest
from finetune_operator.kube.resources import FINE_TUNE_JOBS
from finetune_operator.pods.roles import DATASET_ROLE

PROCESS = "kwok"
TEAM = "team-00"
"""The namespace of the job FINISHING."""
JOBSET_LABEL = "jobset.sigs.k8s.io/jobset-name"
NODES = 10

PREFLIGHT_REPORT = PreflightReport(
    dataset=DatasetFindings(
        format="Chat",
        training=FileStatistics(examples=1500, tokens=90_000, max_tokens=120),
        validation=FileStatistics(examples=150, tokens=9_000, max_tokens=118),
    ),
    model=ModelStatus(architecture="LlamaForCausalLM", parameters=596_049_920, context_length=32_768),
)
_UID, _NAMESPACE = "00000000", "namespace-of-the-pod"
"""They stand for what kwok puts in, of the Pod: the operator takes no result of another folder."""


def train_report(job: dict[str, Any]) -> TrainReport:
    """What the training Pod of the job FINISHING reports."""
    run = f"1-{run_digest(FineTuneJobSpec.model_validate(job['spec']), 1)}"
    folder = f"s3://models/finetune/{TEAM}/{FINISHING}/{run_folder(run, _UID)}"
    result = Result(
        uri=f"{folder}/result",
        base_model_uri="s3://models/base",
        adapter_type="LoRA",
        step=750,
        digest="sha256:" + "5a" * 32,
        train_loss=0.4251,
        eval_loss=0.5102,
        trained_tokens=270_000,
    )
    checkpoints = [
        CheckpointStatus(step=step, uri=f"{folder}/checkpoints/step-{step:06}", metric=0.6, size=40_000_000)
        for step in (600, 675, 750)
    ]
    return TrainReport(result=result, checkpoints=checkpoints)


def dataset_report() -> DatasetReport:
    """What the Pod that builds a team's Dataset reports."""
    run = f"1-{dataset_run_identity.run_digest(DatasetSpec.model_validate(ours.DATASET['spec']), 1)}"
    name = ours.DATASET["metadata"]["name"]
    folder = f"s3://models/finetune/{_NAMESPACE}/{name}/{run_folder(run, _UID)}/result/claim-000001"
    sizes = {"training": 1500, "validation": 150}
    splits = [
        SplitStatus(name=split, uri=f"{folder}/{split}.jsonl", examples=examples, size=examples * 400, sha256="7b" * 32)
        for split, examples in sizes.items()
    ]
    digest, examples = "sha256:" + "3c" * 32, sum(sizes.values())
    return DatasetReport(revision=Revision(digest=digest, uri=folder, format="Chat", examples=examples, splits=splits))


def start(plane: ControlPlane, product: Product) -> None:
    """Start kwok, with NODES nodes that are Ready and large enough for every Pod."""
    config = plane.home / "kwok.yaml"
    config.write_text(yaml.safe_dump_all([*_stages(), *_ends(product)]))
    user = plane.kubeconfig_for(KWOK, ["system:masters"])
    command: list[str | Path] = [binaries(["kwok"])["kwok"], f"--config={config}", f"--kubeconfig={user}"]
    command += ["--manage-all-nodes", "--v=WARN"]
    processes.start(plane.home, PROCESS, command)


def stop(plane: ControlPlane) -> None:
    """End kwok."""
    processes.stop(plane.home, PROCESS)


def nodes() -> list[dict[str, Any]]:
    """The nodes, as they are created."""
    return [
        {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}}}
        for name in (f"kwok-{number}" for number in range(NODES))
    ]


_ALIVE = {"key": ".metadata.deletionTimestamp", "operator": "DoesNotExist"}
_RUNNING = {"key": ".status.phase", "operator": "In", "values": ["Running"]}


def _stages() -> list[dict[str, Any]]:
    parallel = {"podPlayStageParallelism": 16, "nodePlayStageParallelism": 4, "nodeLeaseParallelism": 4}
    options = {**parallel, "nodeLeaseDurationSeconds": 40}
    pending = {"key": ".status.phase", "operator": "In", "values": ["Pending"]}
    not_ready = {
        "key": '.status.conditions.[] | select( .type == "Ready" ) | .status',
        "operator": "NotIn",
        "values": ["True"],
    }
    return [
        {"apiVersion": "config.kwok.x-k8s.io/v1alpha1", "kind": "KwokConfiguration", "options": options},
        _stage("node-ready", "Node", [not_ready], status=_NODE_READY),
        _stage("pod-running", "Pod", [_ALIVE, pending], status=_POD_RUNNING),
        _stage("pod-gone", "Pod", [{**_ALIVE, "operator": "Exists"}]),
    ]


def _ends(product: Product) -> list[dict[str, Any]]:
    """Which of the product's Pods end, and what they leave."""
    if product.jobs != FINE_TUNE_JOBS:
        return [_stage("rival", "Pod", [_ALIVE, _RUNNING], labels={JOBSET_LABEL: FINISHING}, status=_succeeded(""))]
    finishing = {
        "key": '.metadata.annotations["finetune.dev/owner"]',
        "operator": "In",
        "values": [f"FineTuneJob/{FINISHING}"],
    }
    trained = train_report(product.job(FINISHING, TEAM))
    return [
        _ending("preflight", PREFLIGHT_REPORT),
        _ending("train", trained, finishing),
        _ending(DATASET_ROLE, dataset_report()),
    ]


def _ending(role: str, report: PreflightReport | TrainReport | DatasetReport, *more: dict[str, Any]) -> dict[str, Any]:
    """The Pods of a role end with this report."""
    labels, status = {"finetune.dev/role": role}, _succeeded(to_termination_message(report))
    return _stage(role, "Pod", [_ALIVE, _RUNNING, *more], labels=labels, status=status)


def _stage(
    name: str,
    kind: str,
    expressions: list[dict[str, Any]],
    *,
    labels: dict[str, str] | None = None,
    status: str | None = None,
) -> dict[str, Any]:
    """A Stage without a delay: it sets the status, or deletes the object where none is given."""
    selector: dict[str, Any] = {"matchExpressions": expressions}
    if labels is not None:
        selector["matchLabels"] = labels
    return {
        "apiVersion": "kwok.x-k8s.io/v1alpha1",
        "kind": "Stage",
        "metadata": {"name": name},
        "spec": {
            "resourceRef": {"apiGroup": "v1", "kind": kind},
            "selector": selector,
            "next": {"statusTemplate": status} if status is not None else {"delete": True},
        },
    }


_NODE_READY = """
{{ $now := Now }}
phase: Running
conditions:
- {type: Ready, status: "True", reason: KubeletReady, lastHeartbeatTime: {{ $now | Quote }}, lastTransitionTime: {{ $now | Quote }}}
allocatable: {cpu: 100k, memory: 1Pi, ephemeral-storage: 1Pi, pods: 1M}
capacity: {cpu: 100k, memory: 1Pi, ephemeral-storage: 1Pi, pods: 1M}
"""  # noqa: E501
_POD_RUNNING = """
{{ $now := Now }}
phase: Running
startTime: {{ $now | Quote }}
conditions:
- {type: Initialized, status: "True", lastTransitionTime: {{ $now | Quote }}}
- {type: ContainersReady, status: "True", lastTransitionTime: {{ $now | Quote }}}
- {type: Ready, status: "True", lastTransitionTime: {{ $now | Quote }}}
containerStatuses:
{{ range .spec.containers }}
- name: {{ .name | Quote }}
  image: {{ .image | Quote }}
  ready: true
  restartCount: 0
  state: {running: {startedAt: {{ $now | Quote }}}}
{{ end }}
"""


def _succeeded(message: str) -> str:
    """The container ended with status 0 and this termination message."""
    message = message.replace("'", "''")
    message = message.replace(_UID, '{{ printf "%.8s" (index $.metadata.labels "finetune.dev/owner-uid") }}')
    message = message.replace(_NAMESPACE, "{{ $.metadata.namespace }}")
    return f"""
{{{{ $now := Now }}}}
phase: Succeeded
containerStatuses:
{{{{ range .spec.containers }}}}
- name: {{{{ .name | Quote }}}}
  image: {{{{ .image | Quote }}}}
  ready: false
  restartCount: 0
  state:
    terminated:
      exitCode: 0
      reason: Completed
      startedAt: {{{{ $now | Quote }}}}
      finishedAt: {{{{ $now | Quote }}}}
      message: '{message}'
{{{{ end }}}}
"""
