"""OpenAI's own client, unmodified: a job from the upload to the tuned model, and what a script may do on the way."""

from __future__ import annotations

import json
import time
from pathlib import Path

import httpx2
import openai
import pytest

from finetune_api.conditions import Reason
from tests.integration.operator import played
from tests.integration.operator.api import Object, wait_for
from tests.integration.operator.jobs import LINE_7, TRAIN_REPORT, preflight_succeeds
from tests.integration.operator.openai.service import Service

LINES = [
    {"messages": [{"role": "user", "content": f"{n} + 1"}, {"role": "assistant", "content": str(n + 1)}]}
    for n in range(12)
]
TRAIN = "".join(json.dumps(line) + "\n" for line in LINES).encode()
MODEL = "gpt-4o-mini-2024-07-18"


@pytest.fixture(scope="module")
def training_file(client: openai.OpenAI) -> str:
    return client.files.create(file=("train.jsonl", TRAIN), purpose="fine-tune").id


def test_a_script_written_for_openai_gets_its_model(service: Service, tmp_path: Path) -> None:
    """Acceptance case E1, but for the chat: two lines of the script are changed, `base_url` and `api_key`."""
    client = openai.OpenAI(base_url=f"{service.url}/v1", api_key=service.token("client"))
    path = tmp_path / "train.jsonl"
    path.write_bytes(TRAIN)
    with path.open("rb") as content:
        file = client.files.create(file=content, purpose="fine-tune")
    job = client.fine_tuning.jobs.create(
        training_file=file.id,
        model=MODEL,
        suffix="Sums",
        seed=7,
        metadata={"team": "a"},
        method={
            "type": "supervised",
            "supervised": {"hyperparameters": {"n_epochs": 3, "learning_rate_multiplier": 2, "batch_size": "auto"}},
        },
    )
    assert (job.status, job.model, job.fine_tuned_model) == ("validating_files", MODEL, None)
    stored = _job(service, job.id)
    assert stored["spec"]["model"] == {"uri": "s3://models/base"}
    assert stored["spec"]["hyperparameters"] == {"epochs": 3, "learningRate": 4e-4, "seed": 7}
    _train(service, job.id)
    done = client.fine_tuning.jobs.retrieve(job.id)
    name = f"ft:qwen3-0.6b:{service.api.namespace}:sums:{job.id.removeprefix('ftjob-')}"
    assert (done.status, done.fine_tuned_model, done.error) == ("succeeded", name, None)
    assert done.finished_at is not None
    assert done.hyperparameters.batch_size == 4, "what 'auto' became"
    messages = [event.message for event in client.fine_tuning.jobs.list_events(job.id, limit=50)]
    assert messages[:2] == ["The job has successfully completed", f"New fine-tuned model created: {name}"]
    assert messages[-1] == f"Created fine-tuning job: {job.id}"
    (checkpoint,) = client.fine_tuning.jobs.checkpoints.list(job.id)
    assert (checkpoint.step_number, checkpoint.fine_tuned_model_checkpoint) == (750, f"{name}:ckpt-step-750")
    assert name in [model.id for model in client.models.list()]
    assert client.models.retrieve(name).owned_by == service.api.namespace
    again = client.fine_tuning.jobs.create(training_file=file.id, model=name)
    assert _job(service, again.id)["spec"]["model"] == {"fineTuneJobRef": {"name": job.id}}


def test_the_trainers_events_and_results_are_read_from_the_storage(
    service: Service, client: openai.OpenAI, training_file: str
) -> None:
    job = client.fine_tuning.jobs.create(training_file=training_file, model=MODEL)
    _train(service, job.id)
    folder = _job(service, job.id)["status"]["storageUri"].removeprefix("s3://models/")
    event = {"time": "2026-11-26T12:00:00Z", "attempt": 1, "message": "Step 10/750: training loss=0.5", "step": 10}
    service.s3.put("models", f"{folder}/events.jsonl", json.dumps(event).encode() + b"\nbroken\n")
    service.s3.put("models", f"{folder}/results.csv", b"step,train_loss\n10,0.5\n")
    found = {event.message: event for event in client.fine_tuning.jobs.list_events(job.id, limit=50)}
    assert found[event["message"]].type == "metrics"
    assert found[event["message"]].data == {"step": 10}
    (results,) = client.fine_tuning.jobs.retrieve(job.id).result_files
    assert client.files.retrieve(results).purpose == "fine-tune-results"
    assert client.files.content(results).read() == b"step,train_loss\n10,0.5\n"


def test_a_job_is_paused_resumed_and_cancelled(service: Service, client: openai.OpenAI, training_file: str) -> None:
    job = client.fine_tuning.jobs.create(training_file=training_file, model=MODEL)
    assert client.fine_tuning.jobs.pause(job.id).status in ("pausing", "paused")
    service.api.wait_reason("FineTuneJob", job.id, "Suspended")
    assert client.fine_tuning.jobs.retrieve(job.id).status == "paused"
    assert client.fine_tuning.jobs.resume(job.id).status != "pausing"
    assert client.fine_tuning.jobs.cancel(job.id).status != "pausing"
    service.api.wait_reason("FineTuneJob", job.id, "Cancelled")
    assert client.fine_tuning.jobs.retrieve(job.id).status == "cancelled"
    assert client.fine_tuning.jobs.retrieve(job.id).finished_at is not None
    with pytest.raises(openai.BadRequestError, match="Cannot cancel a job with status 'cancelled'"):
        client.fine_tuning.jobs.cancel(job.id)


def test_why_a_job_failed_is_in_its_error(service: Service, client: openai.OpenAI, training_file: str) -> None:
    job = client.fine_tuning.jobs.create(training_file=training_file, model=MODEL)
    stored = service.api.wait("FineTuneJob", job.id, lambda found: "status" in found)
    (pod,) = service.api.wait_children(stored, "preflight", "Pod")
    played.ends(service.api, pod, LINE_7.model_copy(update={"reason": Reason.INVALID_SPEC}))
    service.api.wait("FineTuneJob", job.id, lambda found: found["status"].get("phase") == "Failed")
    failed = client.fine_tuning.jobs.retrieve(job.id)
    assert failed.status == "failed"
    assert failed.error is not None
    assert failed.error.code == "invalid_spec"
    assert "line 7: the last message is not the assistant's" in failed.error.message


@pytest.mark.parametrize(
    ("wrong", "param", "message"),
    [
        ({"model": "gpt-5"}, "model", "Available models: qwen3-0.6b, gpt-4o-mini-2024-07-18."),
        ({"training_file": "file-000000000000000000000000"}, "training_file", "invalid training_file"),
        ({"training_file": "../../secret"}, "training_file", "invalid training_file"),
        ({"hyperparameters": {"n_epochs": 0}}, "hyperparameters.n_epochs", "greater than or equal to 1"),
        ({"suffix": "s" * 65}, "suffix", "at most 64 characters"),
        ({"metadata": {str(n): "" for n in range(17)}}, "metadata", "at most 16 items"),
        ({"method": {"type": "reinforcement"}}, "method", "needs the member 'reinforcement' with a grader"),
        ({"integrations": [{"type": "wandb", "wandb": {"project": "p"}}]}, "integrations", "at most 0 items"),
    ],
)
def test_a_wrong_request_is_refused_with_the_field(
    client: openai.OpenAI, training_file: str, wrong: Object, param: str, message: str
) -> None:
    with pytest.raises((openai.BadRequestError, openai.NotFoundError)) as refused:
        client.fine_tuning.jobs.create(**({"training_file": training_file, "model": MODEL} | wrong))
    assert refused.value.param == param
    assert message in str(refused.value)


def test_an_unknown_model_has_openais_code(client: openai.OpenAI, training_file: str) -> None:
    with pytest.raises(openai.NotFoundError) as refused:
        client.fine_tuning.jobs.create(training_file=training_file, model="gpt-5")
    assert refused.value.code == "model_not_found"


def test_pages_have_every_job_once_while_one_is_created(client: openai.OpenAI, training_file: str) -> None:
    mark = f"pages-{time.time()}"

    def create() -> str:
        return client.fine_tuning.jobs.create(training_file=training_file, model=MODEL, metadata={"mark": mark}).id

    made = {create() for _ in range(7)}
    assert len(made) == 7, "the same request, sent anew by the script, is another job"
    page = client.fine_tuning.jobs.list(limit=3, metadata={"mark": mark})
    seen, sizes = [job.id for job in page.data], [len(page.data)]
    create()
    while page.has_next_page():
        page = page.get_next_page()
        seen += [job.id for job in page.data]
        sizes.append(len(page.data))
    assert (set(seen), len(seen), sizes) == (made, 7, [3, 3, 1])


class LosesTheAnswer(httpx2.BaseTransport):
    """Lets a request arrive, and loses the first answer to it."""

    def __init__(self, path: str) -> None:
        self._inner = httpx2.HTTPTransport()
        self._path = path
        self.sent = 0

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        answer = self._inner.handle_request(request)
        if request.url.path != self._path or request.method != "POST":
            return answer
        self.sent += 1
        if self.sent > 1:
            return answer
        answer.read()
        raise httpx2.ReadError("the connection was reset")


def test_a_lost_answer_makes_no_second_job_and_no_second_file(service: Service) -> None:
    """The client sends the request again, without any key that tells."""
    upload, create = LosesTheAnswer("/v1/files"), LosesTheAnswer("/v1/fine_tuning/jobs")
    token = service.token("client")
    uploading = service.client(token, http_client=httpx2.Client(transport=upload))
    before = len(service.stored())
    file = uploading.files.create(file=("again.jsonl", TRAIN), purpose="fine-tune")
    assert upload.sent == 2
    assert len(service.stored()) - before == 2, "content and record of one file"
    creating = service.client(token, http_client=httpx2.Client(transport=create))
    job = creating.fine_tuning.jobs.create(training_file=file.id, model=MODEL)
    assert create.sent == 2
    same = [
        item["metadata"]["name"]
        for item in service.api.items("FineTuneJob")
        if item["spec"]["dataset"]["training"]["uri"].split("/")[-2] == file.id
    ]
    assert same == [job.id]


def test_azures_client_finds_the_same_jobs(service: Service, client: openai.OpenAI, training_file: str) -> None:
    job = client.fine_tuning.jobs.create(training_file=training_file, model=MODEL)
    azure = openai.AzureOpenAI(
        azure_endpoint=service.url, api_key=service.token("client"), api_version="2025-04-01-preview"
    )
    assert azure.fine_tuning.jobs.retrieve(job.id).id == job.id
    assert azure.files.retrieve(training_file).id == training_file


def _job(service: Service, name: str) -> Object:
    return service.api.get("FineTuneJob", name)


def _train(service: Service, name: str) -> None:
    """Play the Pods of a job to its end."""
    api = service.api
    job = api.wait("FineTuneJob", name, lambda found: "status" in found)
    preflight_succeeds(api, job)
    (pod,) = api.wait_children(job, "train", "Pod")
    played.runs(api, pod)
    api.wait_reason("FineTuneJob", name, "Training")
    client = service.client(service.token("client"))
    wait_for(lambda: client.fine_tuning.jobs.retrieve(name).status == "running", "a running job")
    played.ends(api, pod, TRAIN_REPORT)
    api.wait_reason("FineTuneJob", name, "Succeeded")
