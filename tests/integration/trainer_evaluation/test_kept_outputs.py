"""What a loaded model has said is kept: another try, after a suspension say, goes on from there."""

from __future__ import annotations

import json
import secrets
from pathlib import Path
from typing import Any

import pytest

from finetune_api.conditions import Reason
from finetune_api.evaluation import CandidateProgress, Generation
from finetune_api.graders import Grader
from finetune_api.pod_contracts.progress import TrainerStatus
from finetune_api.pod_contracts.run import EvaluateRun, JobIdentity, ModelSource, NamedModel
from finetune_api.sources import parse_s3
from finetune_grading.sample import Sample
from finetune_trainer.evaluation.evaluate import evaluate
from finetune_trainer.generate import generation
from finetune_trainer.outputs import kept_outputs, loaded_outputs
from finetune_trainer.outputs.heldout import HeldOutExample, Prompt
from finetune_trainer.outputs.output import Output
from finetune_trainer.process.failures import DiagnosedError, DisruptedError
from finetune_trainer.storage.storage import Storage
from tests.integration.trainer.data.played_hub import other_server
from tests.integration.trainer_evaluation.buckets import Bucket
from tests.integration.trainer_evaluation.test_evaluate import QUESTIONS
from tests.integration.trainer_evaluation.tiny_models import chat


class Batches:
    """The batches that a try generates; after `most` of them the Pod is told to stop."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.sizes: list[int] = []
        self.most: int | None = None
        self.seeds: list[int] = []
        generate, seed = generation._generate_batch, generation.torch.manual_seed

        def counted(generator: Any, prompts: Any, *rest: Any) -> list[list[int]]:
            if len(self.sizes) == self.most:
                raise DisruptedError("told to stop")
            self.sizes.append(len(prompts))
            return generate(generator, prompts, *rest)

        monkeypatch.setattr(generation, "_generate_batch", counted)
        monkeypatch.setattr(generation, "MAX_BATCH_PROMPTS", 4)
        monkeypatch.setattr(kept_outputs, "KEEP_SECONDS", 0.0)
        monkeypatch.setattr(generation.torch, "manual_seed", lambda value: (self.seeds.append(value), seed(value))[1])

    def next_try(self, most: int | None = None) -> None:
        self.sizes, self.seeds, self.most = [], [], most


@pytest.fixture(scope="session")
def tuned_uri(bucket: Bucket, tuned: Path) -> str:
    return bucket.put_folder("models/tuned", tuned)


@pytest.fixture
def batches(monkeypatch: pytest.MonkeyPatch) -> Batches:
    return Batches(monkeypatch)


def run_of(bucket: Bucket, uri: str, folder: str, number: int, **changes: Any) -> EvaluateRun:
    dataset = bucket.put_lines("data/kept.jsonl", [chat(question, "x") for question in QUESTIONS])
    return EvaluateRun(
        job=JobIdentity(namespace="team-a", name="judge", uid="u", run_id="1"),
        storage=bucket.storage,
        output_uri=bucket.uri(f"{folder}/try-{number}"),
        outputs_uri=bucket.uri(f"{folder}/outputs"),
        models=[NamedModel(name="tuned", model=ModelSource(uri=uri))],
        dataset_uri=dataset,
        graders=[Grader.from_wire({"name": "exact", "type": "StringCheck"})],
        **{"generation": Generation(max_tokens=8), **changes},
    )


def row(**changes: Any) -> str:
    """What a try has kept of its first output."""
    counts = {"prompt_tokens": 1, "completion_tokens": 1, "seconds": 1.5, "batch": 0}
    return json.dumps([[0, {"text": "forged", "calls": [], **counts, **changes}]])


def outputs_of(bucket: Bucket, folder: str, number: int) -> list[str]:
    rows = bucket.read(bucket.uri(f"{folder}/try-{number}/samples.jsonl")).splitlines()
    return [json.loads(row)["outputs"]["tuned"] for row in rows]


def test_another_try_makes_only_what_the_one_before_has_not(
    bucket: Bucket, tuned_uri: str, batches: Batches, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, kept = (f"runs/kept-{secrets.token_hex(4)}" for _ in range(2))
    evaluate(run_of(bucket, tuned_uri, whole, 1))
    assert batches.sizes == [4] * 5

    batches.next_try(most=3)
    with pytest.raises(DisruptedError):
        evaluate(run_of(bucket, tuned_uri, kept, 1))
    batches.next_try()
    report = evaluate(run_of(bucket, tuned_uri, kept, 2))
    assert batches.sizes == [4, 4], "12 of 20 were there"
    assert outputs_of(bucket, kept, 2) == outputs_of(bucket, whole, 1)
    (took,) = report.outputs
    assert (took.count, took.measurements) == (20, 5), "every batch counts once, whichever try has made it"

    # All are there: no model is fetched.
    batches.next_try()
    monkeypatch.setattr(loaded_outputs, "fetch_loadable", lambda *_: pytest.fail("a model was fetched"))
    evaluate(run_of(bucket, tuned_uri, kept, 3))
    assert outputs_of(bucket, kept, 3) == outputs_of(bucket, whole, 1)


def test_what_was_asked_otherwise_is_asked_again_and_another_try_draws_other_numbers(
    bucket: Bucket, tuned_uri: str, batches: Batches
) -> None:
    folder = f"runs/kept-{secrets.token_hex(4)}"
    sampled = {"generation": Generation(max_tokens=8, temperature=1.0, samples_per_example=2, seed=5)}
    batches.next_try(most=2)
    with pytest.raises(DisruptedError):
        evaluate(run_of(bucket, tuned_uri, folder, 1, **sampled))
    assert batches.seeds[0] == 5
    batches.next_try()
    evaluate(run_of(bucket, tuned_uri, folder, 2, **sampled))
    assert (sum(batches.sizes), batches.seeds[0]) == (32, 13), (
        "8 of 40 were there; by one seed two samples would be one"
    )
    batches.next_try()
    evaluate(run_of(bucket, tuned_uri, folder, 3, generation=Generation(max_tokens=4)))
    assert sum(batches.sizes) == 20


def test_a_model_that_was_overwritten_at_its_uri_is_another(bucket: Bucket, tuned: Path, batches: Batches) -> None:
    folder, model = f"runs/kept-{secrets.token_hex(4)}", f"models/{secrets.token_hex(4)}"
    uri = bucket.put_folder(model, tuned)
    evaluate(run_of(bucket, uri, folder, 1))
    bucket.put(f"{model}/README.md", b"trained anew")
    batches.next_try()
    evaluate(run_of(bucket, uri, folder, 2))
    assert sum(batches.sizes) == 20


def test_so_is_one_whose_base_was_overwritten_though_its_adapter_has_a_digest(bucket: Bucket) -> None:
    folder, base = bucket.uri(f"runs/kept-{secrets.token_hex(4)}"), f"models/{secrets.token_hex(4)}"
    bucket.put(f"{base}/config.json", b"{}")
    lora = ModelSource(uri=bucket.uri(base), adapter_uri=bucket.uri("models/lora"), digest="sha256:aa")
    kept = _kept(bucket, folder, lora)
    kept.keep({0: Output(Sample("said"), prompt_tokens=1, completion_tokens=1, seconds=1.0, batch=0)})
    kept.write()
    assert _kept(bucket, folder, lora).find()[0].sample.output_text == "said"
    bucket.put(f"{base}/model.safetensors", b"trained anew")
    assert _kept(bucket, folder, lora).find() == {}


def test_so_is_one_of_a_hub_at_another_commit(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, model = bucket.uri(f"runs/kept-{secrets.token_hex(4)}"), ModelSource(uri="hf://org/model@main")
    found = []
    for commit in ("a" * 40, "a" * 40, "b" * 40):
        with other_server(json.dumps({"id": "org/model", "sha": commit, "siblings": []}).encode()) as endpoint:
            monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", endpoint)
            monkeypatch.setattr("huggingface_hub.hf_api.constants.ENDPOINT", endpoint)
            kept = _kept(bucket, folder, model)
        found.append(len(kept.find()))
        kept.keep({0: Output(Sample("said"), prompt_tokens=1, completion_tokens=1, seconds=1.0, batch=0)})
        kept.write()
    assert found == [0, 1, 0]


def _kept(bucket: Bucket, folder: str, model: ModelSource) -> kept_outputs.KeptOutputs:
    example = HeldOutExample(1, Prompt("Hello."), {})
    return kept_outputs.KeptOutputs(Storage(bucket.storage), folder, model, Generation(), [example])


def test_a_pod_that_gets_sigterm_says_so_though_its_outputs_can_no_longer_be_kept(
    bucket: Bucket, tuned_uri: str, batches: Batches, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disruption never counts; a storage that denies a write would end the run."""
    monkeypatch.setattr(kept_outputs, "KEEP_SECONDS", 999.0)
    run = run_of(bucket, tuned_uri, f"runs/kept-{secrets.token_hex(4)}", 1)

    def denied(*_: object) -> None:
        raise DiagnosedError(Reason.STORAGE_DENIED, "The key was taken away.")

    monkeypatch.setattr(Storage, "write", denied)
    batches.next_try(most=1)
    with pytest.raises(DisruptedError):
        evaluate(run)
    batches.next_try()
    with pytest.raises(DiagnosedError, match="taken away"):
        evaluate(run)


LIES = (
    '[[0, {"text": "forged"}], [99999, "x"]]',
    row(text=None),
    row(seconds=1e300),
    row(batch=2**80),
    row(prompt_tokens=-1),
    row(calls=[{"type": "function", "function": {"name": 5, "arguments": "{}"}}]),
    row(calls=[{"type": "function", "function": {"name": "f", "arguments": "[" * 9999}}]),
    row(text="\ud800"),
    row()[:-9],
)
"""No output that a model can have made: a number that no status holds would end every try."""


def test_what_lies_there_and_is_no_output_is_made_again(bucket: Bucket, tuned_uri: str, batches: Batches) -> None:
    folder = f"runs/kept-{secrets.token_hex(4)}"
    batches.next_try(most=1)
    with pytest.raises(DisruptedError):
        evaluate(run_of(bucket, tuned_uri, folder, 1))
    location = parse_s3(bucket.uri(f"{folder}/outputs"))
    (kept,) = Storage(bucket.storage).list_objects(location)
    for number, lie in enumerate(LIES):
        bucket.put(location.join(kept.path if number == 0 else f"{kept.path}-{number}").key, lie.encode())
    batches.next_try()
    evaluate(run_of(bucket, tuned_uri, folder, 2))
    assert sum(batches.sizes) == 20


def test_progress_counts_what_is_there_what_is_made_and_what_is_graded(
    bucket: Bucket, tuned_uri: str, batches: Batches, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, last = f"runs/kept-{secrets.token_hex(4)}", []

    class Sender:
        def __init__(self, target: object) -> None: ...

        def send(self, status: TrainerStatus, *, candidates: list[CandidateProgress]) -> None:
            last.append(candidates)

        def close(self) -> None: ...

    monkeypatch.setattr("finetune_trainer.report.evaluation_progress.ProgressSender", Sender)
    monkeypatch.setattr("finetune_trainer.report.evaluation_progress.REPORT_SECONDS", 0.0)
    evaluate(run_of(bucket, tuned_uri, folder, 1, progress={"url": "https://finetune.svc:8443"}))
    made = [(one.outputs, one.graded) for (one,) in last]
    assert made[-1] == (20, 20)
    assert made == sorted(made), "outputs first, and then their grades, one after another"
    assert {(8, 0), (20, 0), (20, 7)} <= set(made)
