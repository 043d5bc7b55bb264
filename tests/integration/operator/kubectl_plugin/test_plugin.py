"""`kubectl finetune` with a real kubectl against a real API server, and jobs whose Pods are played."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import yaml

from e2e.cluster.binaries import binaries
from e2e.cluster.components.control_plane import ControlPlane
from finetune_api.conditions import Reason
from finetune_api.pod_contracts.outcome import Failure
from kubectl_finetune.spec.validate import UNCHECKED
from tests.integration.operator import played
from tests.integration.operator.api import Api, Object
from tests.integration.operator.jobs import EVALUATION, JOB, LINE_7, TRAIN_REPORT, starts_training

pytestmark = pytest.mark.usefixtures("operator")

SECONDS = 120
JWT = "eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJrdWJlcm5ldGVzIn0.c2lnbmF0dXJlLW9mLXRoZS10b2tlbg"
PRESIGNED = "https://s3.example/b/k?X-Amz-Signature=0123456789abcdef"
CRASH = Failure(
    reason=Reason.LOSS_NOT_FINITE,
    message=f"The loss became NaN at step 7. {PRESIGNED}",
    rank=1,
    suggestion="Halve hyperparameters.learningRate.",
    log=f"step 6\nstep 7 loss=nan\ntoken={JWT}",
)
Plugin = Callable[..., tuple[int, str, str]]


def start(plane: ControlPlane, words: Sequence[str], kubeconfig: Path | None = None) -> subprocess.Popen[str]:
    """The plugin, as kubectl runs it."""
    folder = binaries(["kubectl"])["kubectl"].parent
    return subprocess.Popen(
        [sys.executable, "-m", "kubectl_finetune", *words],
        env={
            **{name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "FORCE_COLOR")},
            "PATH": f"{folder}:{os.environ['PATH']}",
            "PYTHONPATH": ":".join(sys.path),
            "KUBECONFIG": str(kubeconfig or plane.kubeconfig),
            "COLUMNS": "80",
            "LINES": "24",
        },
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Exit code, output and errors; a traceback is a failure of any test."""
    output, errors = process.communicate(timeout=SECONDS)
    assert "Traceback" not in errors, errors
    return process.returncode, output, errors


@pytest.fixture
def plugin(cluster: ControlPlane, api: Api) -> Plugin:
    """Exit code, output and errors of the plugin, in the namespace of the test."""

    def run(*words: str, kubeconfig: Path | None = None) -> tuple[int, str, str]:
        return ended(start(cluster, [*words, "-n", api.namespace], kubeconfig))

    return run


def fails(api: Api) -> Object:
    """A job whose second node reports that the loss is not finite, which ends the run."""
    job = api.create("FineTuneJob", "router", JOB)
    _, pods = starts_training(api, job)
    for pod in pods:
        played.is_bound(api, pod)
    played.ends(api, pods[1], CRASH)
    played.ends(api, pods[0], "", 1)
    return api.wait_reason("FineTuneJob", "router", "LossNotFinite")


def test_a_watch_follows_a_job_to_its_end(cluster: ControlPlane, api: Api, plugin: Plugin) -> None:
    """Acceptance case F1."""
    job = api.create("FineTuneJob", "router", JOB)
    _, pods = starts_training(api, job)
    watching = start(cluster, ["watch", "router", "--timeout=110s", "-n", api.namespace])
    assert watching.stdout is not None
    lines: list[str] = []
    while sum(line.endswith(": Running") for line in lines) < 2:
        lines.append(watching.stdout.readline().rstrip())
        assert lines[-1], "it ended before it told of both Pods"
    for pod in pods:
        played.ends(api, pod, TRAIN_REPORT if pod is pods[0] else "")
    code, output, errors = ended(watching)
    assert code == 0, errors
    lines += output.splitlines()
    assert lines[0].split()[1:2] == ["Training"]
    assert lines[-1].split()[1] == "Succeeded" and lines[-1].endswith("/result"), "whole, though wider than 80 columns"
    assert "\x1b" not in "".join(lines)
    assert len(lines) == len({line[10:] for line in lines}), sorted(line[10:] for line in lines)
    code, output, _ = plugin("watch", "router")
    assert (code, len(output.splitlines())) == (0, 1), "what has ended is told at once"


def test_a_failed_job_is_reported_with_what_to_do_next(api: Api, plugin: Plugin) -> None:
    """F1 and F3: its Pods are gone, and the end of the log is in the status."""
    failed = fails(api)
    assert plugin("watch", "router")[0] == 1
    code, output, _ = plugin("status", "router")
    assert code == 0
    for told in ("LossNotFinite", "rank 1", "step 7 loss=nan", "Halve hyperparameters.learningRate."):
        assert told in output, output
    assert f"kubectl finetune rerun router -n {api.namespace}" in output
    code, output, errors = plugin("events", "router")
    assert code == 0 and "LossNotFinite" in output and "FineTuneJob/router" in output, errors
    for pod in api.children(failed["metadata"]["uid"])["Pod"]:
        api.request("DELETE", api.path("Pod", pod["metadata"]["name"]), {"gracePeriodSeconds": 0})
    code, output, errors = plugin("logs", "router", "--rank=1")
    assert code == 0, errors
    assert "has no train Pods" in errors and "step 7 loss=nan" in output


def test_a_zip_has_everything_but_secrets(api: Api, plugin: Plugin, tmp_path: Path) -> None:
    """F2."""
    secret = {"metadata": {"name": "s3-credentials"}, "stringData": {"AWS_SECRET_ACCESS_KEY": "wJalrXUtnFEMI"}}
    api.request("POST", f"/api/v1/namespaces/{api.namespace}/secrets", secret)
    failed = fails(api)
    (attempt,) = api.children_of(failed, "train", "Job")
    api.request(
        "PATCH",
        api.path("FineTuneJob", "router"),
        {"metadata": {"annotations": {"note": f"Authorization: Bearer {JWT}"}}},
        "application/merge-patch+json",
    )
    file = tmp_path / "report.zip"
    code, output, errors = plugin("diagnose", "router", "-o", str(file))
    assert (code, output.strip()) == (0, str(file)), errors
    with zipfile.ZipFile(file) as archive:
        texts = {name.partition("/")[2]: archive.read(name).decode() for name in archive.namelist()}
    assert {"README.txt", "object.json", "class.json", "jobs.json", "pods.json", "events.json"} <= texts.keys()
    whole = "\n".join(texts.values())
    for hidden in (JWT[:25], "wJalrXUtnFEMI", "0123456789abcdef", "managedFields"):
        assert hidden not in whole, hidden
    assert attempt["metadata"]["name"] in texts["jobs.json"]
    assert "LossNotFinite" in texts["status.txt"] and "LossNotFinite" in texts["events.json"]
    (configuration, *_) = json.loads(texts["run-configurations.json"])
    assert configuration["data"]["run.json"]["job"]["name"] == "router"
    assert "log of router-" in texts["README.txt"], "without a node there are no logs, which is said"
    assert plugin("diagnose", "router", "-o", str(file))[0] == 1, "a file that exists is not overwritten"


def test_a_job_is_suspended_resumed_and_run_again(api: Api, plugin: Plugin) -> None:
    job = api.create("FineTuneJob", "router", JOB)
    starts_training(api, job)
    assert plugin("suspend", "router")[1] == "FineTuneJob router is being suspended.\n"
    assert api.get("FineTuneJob", "router")["spec"]["suspend"] is True
    assert "is suspended already" in plugin("suspend", "router")[1]
    assert plugin("resume", "router")[0] == 0
    assert api.get("FineTuneJob", "router")["spec"]["suspend"] is False
    code, _, errors = plugin("rerun", "router")
    assert code == 2 and "--yes" in errors
    assert api.get("FineTuneJob", "router")["spec"]["runId"] == "1"
    assert plugin("rerun", "router", "--yes")[1] == "FineTuneJob router runs again, as run 2.\n"
    assert api.get("FineTuneJob", "router")["spec"]["runId"] == "2"
    code, _, errors = plugin("rerun", "router", "--yes", "--run-id=2")
    assert code == 1 and "runId '2' of FineTuneJob router is that of the present run" in errors
    code, _, errors = plugin("rerun", "router", "--yes", "--run-id=not/valid")
    assert code == 1 and "spec.runId" in errors
    assert plugin("cancel", "router")[0] == 2, "without a terminal to ask"
    assert plugin("cancel", "router", "--yes")[1] == "FineTuneJob router is being cancelled.\n"
    assert api.get("FineTuneJob", "router")["spec"]["cancel"] is True
    assert plugin("rerun", "router", "--yes")[1] == "FineTuneJob router runs again, as run 3.\n"
    assert api.get("FineTuneJob", "router")["spec"]["cancel"] is False


def test_an_evaluation_is_suspended_resumed_and_cancelled(api: Api, plugin: Plugin) -> None:
    api.create("Evaluation", "router", EVALUATION)
    assert plugin("suspend", "eval/router")[1] == "Evaluation router is being suspended.\n"
    assert api.get("Evaluation", "router")["spec"]["suspend"] is True
    assert plugin("resume", "eval/router")[0] == 0
    assert api.get("Evaluation", "router")["spec"]["suspend"] is False
    assert plugin("cancel", "eval/router", "--yes")[1] == "Evaluation router is being cancelled.\n"
    api.wait("Evaluation", "router", lambda found: found["status"].get("phase") == "Cancelled")
    assert plugin("suspend", "eval/router")[0] != 0, "it is over"
    api.patch("Evaluation", "router", {"spec": {"suspend": True}})
    api.wait(
        "Evaluation", "router", lambda found: found["status"]["observedGeneration"] == found["metadata"]["generation"]
    )
    told = plugin("resume", "eval/router")[1]
    assert "has ended already, as Cancelled. It is not suspended any more: the next run starts at once." in told
    assert api.get("Evaluation", "router")["spec"]["suspend"] is False
    assert plugin("rerun", "eval/router")[1] == "Evaluation router runs again, as run 2.\n"
    assert api.get("Evaluation", "router")["spec"]["cancel"] is False


def test_a_job_that_waits_for_someone_ends_a_watch_that_was_asked_to(api: Api, plugin: Plugin) -> None:
    job = api.create("FineTuneJob", "router", JOB)
    (pod,) = api.wait_children(job, "preflight", "Pod")
    played.ends(api, pod, LINE_7)
    api.wait_reason("FineTuneJob", "router", "DatasetInvalid")
    code, output, _ = plugin("watch", "router", "--until-stalled")
    assert code == 4 and "line 7" in output
    assert "line 7: the last message is not the assistant's" in plugin("status", "router")[1]


def test_an_evaluation_is_shown_too(api: Api, plugin: Plugin) -> None:
    api.create("Evaluation", "router", EVALUATION)
    api.wait_reason("Evaluation", "router", "ReferenceNotFound")
    code, output, _ = plugin("status", "eval/router")
    assert code == 0 and "ReferenceNotFound" in output


def test_a_user_who_may_read_the_kinds_alone_gets_what_can_be_shown(
    cluster: ControlPlane, api: Api, plugin: Plugin
) -> None:
    """F4: what is missing is said."""
    rules = [
        {"apiGroups": ["finetune.dev"], "resources": ["*"], "verbs": ["get", "list", "watch"]},
        {"apiGroups": [""], "resources": ["pods/log"], "verbs": ["get"]},
    ]
    rbac = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{api.namespace}"
    api.request("POST", f"{rbac}/roles", {"metadata": {"name": "reader"}, "rules": rules})
    binding = {
        "metadata": {"name": "reader"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "reader"},
        "subjects": [{"kind": "User", "name": "reader", "apiGroup": "rbac.authorization.k8s.io"}],
    }
    api.request("POST", f"{rbac}/rolebindings", binding)
    reader = cluster.kubeconfig_for("reader")
    fails(api)
    assert plugin("status", "router", kubeconfig=reader)[0] == 0
    assert plugin("watch", "router", kubeconfig=reader)[0] == 1
    code, output, errors = plugin("logs", "router", kubeconfig=reader)
    assert code == 0 and "cannot list resource" in errors and "step 7 loss=nan" in output
    code, _, errors = plugin("suspend", "router", kubeconfig=reader)
    assert code in (1, 6)
    code, _, errors = plugin("rerun", "router", kubeconfig=reader)
    assert code == 6 and "cannot patch" in errors
    nobody = cluster.kubeconfig_for("nobody")
    for command in ("status", "watch", "events", "logs"):
        code, _, errors = plugin(command, "router", kubeconfig=nobody)
        assert code == 6 and "a role in this namespace" in errors


def test_what_is_not_there_is_said(api: Api, plugin: Plugin, tmp_path: Path) -> None:
    for command in ("status", "watch", "logs", "events", "suspend", "rerun", "diagnose"):
        code, _, errors = plugin(command, "nothing")
        assert code == 5 and 'finetunejobs.finetune.dev "nothing" not found' in errors
    unreachable = tmp_path / "unreachable.yaml"
    server = {"name": "a", "cluster": {"server": "https://127.0.0.1:1"}}
    context = {"name": "a", "context": {"cluster": "a", "user": "a"}}
    config = {"kind": "Config", "current-context": "a", "clusters": [server], "contexts": [context]}
    config["users"] = [{"name": "a", "user": {"token": "x"}}]
    unreachable.write_text(json.dumps(config))
    for command in ("status", "watch"):
        code, _, errors = plugin(command, "router", kubeconfig=unreachable)
        assert code == 6 and "Check --context" in errors
    code, _, errors = plugin("status", "router", "--context=elsewhere")
    assert code == 6 and "elsewhere" in errors


def test_a_file_is_checked_here_and_by_the_api_server(api: Api, plugin: Plugin, tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    code, output, _ = plugin("init", "router", "--model=s3://models/base", "--dataset=s3://data/train.jsonl")
    file.write_text(output)
    assert plugin("validate", str(file)) == (
        0,
        f"{file}: 1 object valid (nothing was written). {UNCHECKED}\n",
        "",
    )
    assert not api.exists("FineTuneJob", "router")
    job = yaml.safe_load(output)
    for change, told in (
        ({"epochs": 3}, "spec.epochs: Extra inputs are not permitted"),
        ({"adapter": {"type": "QLoRA"}, "parallelism": {"strategy": "FSDP"}}, "needs parallelism.strategy DDP"),
    ):
        file.write_text(yaml.safe_dump({**job, "spec": {**job["spec"], **change}}))
        code, output, errors = plugin("validate", str(file))
        assert code == 1 and told in output, output + errors
    api.create("FineTuneJob", "router", JOB)
    code, output, _ = plugin("validate", str(file))
    assert code == 1 and "runId" in output + errors


def test_two_jobs_are_compared(api: Api, plugin: Plugin) -> None:
    for name, rank in (("first", 8), ("second", 16)):
        api.create("FineTuneJob", name, {**JOB, "adapter": {"type": "LoRA", "lora": {"rank": rank}}})
    code, output, errors = plugin("compare", "first", "second")
    assert code == 0, errors
    (row,) = [line.split() for line in output.splitlines() if line.startswith("adapter.lora.rank")]
    assert row == ["adapter.lora.rank", "8", "16"]
    assert "No Evaluation has scores" in errors


def test_names_are_completed_from_the_cluster(cluster: ControlPlane, api: Api) -> None:
    for name in ("router", "route-2", "other"):
        api.create("FineTuneJob", name, JOB)
    # As kubectl asks: the words of the line, the last one as far as it is written.
    words = ["completion", "--for-kubectl", "--", "watch", "-n", api.namespace, "rou"]
    code, output, errors = ended(start(cluster, words))
    assert (code, output.split()) == (0, ["route-2", "router", ":4"]), errors
