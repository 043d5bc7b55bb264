"""The scenario of the demo and of its e2e test: from an empty cluster to an answer of the tuned model."""

from __future__ import annotations

import json
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from e2e.cluster.resolve import Cluster
from e2e.cluster.service_url import service_url
from e2e.demo.api import Api, Object, condition, wait_ready
from e2e.demo.smaller_model import smaller_model
from e2e.images.build import Images
from e2e.prepare import cluster_with_images
from e2e.release import install
from e2e.s3 import ClusterStorage, deploy, reach
from e2e.steps import step

QUICKSTART = Path(__file__).parent.parent.parent / "examples" / "quickstart"
NAMESPACE = "quickstart"
NAME = "dictionary"
SERVICE_PORT = 80
BUCKET = "finetune"
MODEL_KEY = "models/wordnet-base"
SMALLER_MODEL_KEY = "models/wordnet-small"
"""For examples/capabilities/smallest-model.yaml."""
DATASET_KEY = "datasets/dictionary"
JOBS, EVALUATIONS, DEPLOYMENTS = "finetunejobs", "evaluations", "modeldeployments"


@dataclass(frozen=True)
class Platform:
    """A cluster with the operator and the storage in it."""

    cluster: Cluster
    api: Api
    images: Images
    storage: ClusterStorage


@dataclass(frozen=True)
class Tuned:
    """The three objects once each is Ready."""

    job: Object
    evaluation: Object
    deployment: Object


def prepare() -> Platform:
    """Bring up everything that a platform team would: cluster, images, storage, operator."""
    cluster, images = cluster_with_images()
    api = Api(cluster.kubeconfig)
    with step("Start the S3 storage in the cluster"):
        storage = deploy(cluster, images)
    with step("Install the operator with its Helm chart") as current:
        install(cluster, images, current)
    return Platform(cluster, api, images, storage)


def apply(platform: Platform, model: str | None = None) -> None:
    """`kubectl apply` the quickstart's YAML, upon a namespace that is new."""
    upload(platform, model)
    with step("Remove what an earlier demo left"):
        platform.api.kubectl("delete", "namespace", NAMESPACE, "--ignore-not-found", "--timeout=120s", timeout=150)
    with step("kubectl apply -f examples/quickstart/") as current:
        documents = [yaml.safe_load(path.read_text()) for path in sorted(QUICKSTART.glob("*.yaml"))]
        namespace, *others = [_with_model(document, model) for document in documents]
        platform.api.kubectl("apply", "-f", "-", stdin=yaml.safe_dump(namespace))
        secret = credentials(platform.storage, NAMESPACE)
        platform.api.kubectl("apply", "-f", "-", stdin=yaml.safe_dump(secret))
        current.say(platform.api.kubectl("apply", "-f", "-", stdin=yaml.safe_dump_all(others)))


def upload(platform: Platform, model: str | None = None) -> None:
    """Bring the dataset to the storage, and the base models unless another one (a hub's) is asked for."""
    with step("Upload the base model and the dataset to S3"), reach(platform.storage) as s3:
        s3.create_bucket(BUCKET)
        if model is None:
            for file in sorted((QUICKSTART / "base-model").iterdir()):
                if file.suffix in (".json", ".safetensors", ".jinja"):
                    s3.upload(file, BUCKET, f"{MODEL_KEY}/{file.name}")
            for name, content in smaller_model(QUICKSTART / "base-model").items():
                s3.put(BUCKET, f"{SMALLER_MODEL_KEY}/{name}", content)
        for file in sorted((QUICKSTART / "data").glob("*.jsonl")):
            s3.upload(file, BUCKET, f"{DATASET_KEY}/{file.name}")


def follow(platform: Platform) -> Tuned:
    """Watch the job, the evaluation and the deployment until each is Ready."""
    api = platform.api
    with step("Fine-tune on two Pods (FineTuneJob dictionary)") as current:
        job = wait_ready(api, JOBS, NAMESPACE, NAME, current, describe_job, timeout=900)
    with step("Compare base and tuned model (Evaluation dictionary)") as current:
        evaluation = wait_ready(api, EVALUATIONS, NAMESPACE, NAME, current, describe_evaluation, timeout=600)
    with step("Deploy the model that passed its gate (ModelDeployment dictionary)") as current:
        deployment = wait_ready(api, DEPLOYMENTS, NAMESPACE, NAME, current, describe_phase, timeout=600)
    return Tuned(job, evaluation, deployment)


def held_out_example() -> tuple[list[dict[str, str]], str]:
    """The first held-out example: the messages before the answer, and the reference answer."""
    with (QUICKSTART / "data" / "test.jsonl").open() as lines:
        messages = json.loads(next(lines))["messages"]
    return messages[:-1], messages[-1]["content"]


def ask(platform: Platform, deployment: Object, messages: list[dict[str, str]]) -> str:
    """One chat completion of the deployed model over the OpenAI route."""
    body = {"model": deployment["status"]["modelName"], "messages": messages, "max_tokens": 24, "temperature": 0}
    with service_url(platform.api.kubeconfig, NAMESPACE, NAME, SERVICE_PORT) as url:
        request = urllib.request.Request(
            f"{url}/v1/chat/completions",
            data=json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=60) as response:
            answer: dict[str, Any] = json.load(response)
    content = answer["choices"][0]["message"]["content"]
    assert isinstance(content, str)
    return content


def describe_job(job: Object) -> str:
    """Phase, step, loss and time left, in one line."""
    status = job.get("status", {})
    text = describe_phase(job)
    progress = status.get("progress")
    if not progress or status.get("phase") != "Training":
        return text
    text = f"Training step {progress['step']}/{progress['totalSteps']}"
    if "loss" in progress:
        text += f", loss {progress['loss']:.3f}"
    if "evalLoss" in progress:
        text += f", validation loss {progress['evalLoss']:.3f}"
    if "estimatedRemaining" in progress:
        text += f", {progress['estimatedRemaining']} left"
    return text


def describe_evaluation(evaluation: Object) -> str:
    """Phase, percent and time left, in one line."""
    progress = evaluation.get("status", {}).get("progress") or {}
    if "percent" not in progress or evaluation["status"].get("phase") != "Running":
        return describe_phase(evaluation)
    left = f", {progress['estimatedRemaining']} left" if "estimatedRemaining" in progress else ""
    return f"Running: {progress['percent']} %{left}"


def describe_phase(item: Object) -> str:
    """Phase, and the message of the Ready condition."""
    status = item.get("status", {})
    return f"{status.get('phase', 'new')}: {condition(item, 'Ready').get('message', 'waiting for the operator')}"


def credentials(storage: ClusterStorage, namespace: str) -> Object:
    """The Secret with the storage's credentials, for the Pods of a namespace."""
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "s3-credentials", "namespace": namespace},
        "stringData": {"AWS_ACCESS_KEY_ID": storage.access_key, "AWS_SECRET_ACCESS_KEY": storage.secret_key},
    }


def _with_model(document: Object, model: str | None) -> Object:
    """The document with another base model, where it is the FineTuneJob and one is asked for."""
    if model is None or document["kind"] != "FineTuneJob":
        return document
    return {**document, "spec": {**document["spec"], "model": {"uri": model}}}
