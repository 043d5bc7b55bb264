"""Preflight on a real S3: what it finds, and what it says of each thing that would let a run fail."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from finetune_api.conditions import Reason
from finetune_api.finetunejob import (
    Adapter,
    DatasetError,
    Hyperparameters,
    Limit,
    LoRA,
    ModelStatus,
    Parallelism,
    TrainingData,
    ValidationData,
)
from finetune_api.pod_contracts.outcome import PreflightReport
from finetune_api.pod_contracts.run import ModelSource, StorageConfig
from finetune_api.sources import parse_s3
from finetune_trainer.preflight.preflight import preflight
from finetune_trainer.process.failures import DiagnosedError
from finetune_trainer.storage import retries
from finetune_trainer.storage.storage import Storage
from tests.integration.trainer.preflight.tiny_kinds import save
from tests.integration.trainer.runs import Workplace, question
from tests.integration.trainer_evaluation.tiny_models import chat


def test_a_good_run_is_described(workplace: Workplace, storage: Storage, tmp_path: Path) -> None:
    report = preflight(workplace.preflight_run("good"), tmp_path)
    assert report.model == ModelStatus(architecture="LlamaForCausalLM", parameters=94912, context_length=128)
    training = report.dataset.training
    assert training is not None
    assert report.dataset.format == "Chat"
    assert (training.examples, training.truncated) == (40, 0)
    assert 40 * 40 < training.tokens <= 40 * training.max_tokens
    assert report.dataset.validation is not None
    assert report.dataset.validation.examples == 8
    assert report.dataset.warnings == []
    stored = storage.list_objects(parse_s3(workplace.bucket.uri("good")))
    paths = [item.path for item in stored]
    assert paths[:3] == ["dataset.json", "preflight.json", "tokens.json"]
    assert [path.partition("/")[0] for path in paths[3:]] == ["tokens", "tokens"], "of both sets"
    text = workplace.bucket.read(workplace.bucket.uri("good/preflight.json"))
    assert PreflightReport.model_validate_json(text) == report


def test_limit_and_split_are_counted_as_they_will_be_trained(workplace: Workplace, tmp_path: Path) -> None:
    dataset = workplace.dataset(
        training=TrainingData(uri=workplace.training, limit=Limit(percent=50)),
        validation=ValidationData(split_percent=20),
    )
    report = preflight(workplace.preflight_run("split", dataset=dataset), tmp_path)
    assert report.dataset.training is not None
    assert report.dataset.validation is not None
    assert (report.dataset.training.examples, report.dataset.validation.examples) == (16, 8)


def test_duplicates_leaks_and_cut_examples_are_warned_of(workplace: Workplace, tmp_path: Path) -> None:
    long = chat("Why? " * 5, "Because. " * 20)
    lines = [*(question(number) for number in range(12)), question(3), long]
    dataset = workplace.dataset(
        training=TrainingData(uri=workplace.bucket.put_lines("data/odd.jsonl", lines)),
        validation=ValidationData(
            uri=workplace.bucket.put_lines("data/leak.jsonl", [question(3), question(50), question(0)])
        ),
    )
    report = preflight(workplace.preflight_run("warned", dataset=dataset), tmp_path)
    assert report.dataset.warnings == [
        "1 training example(s) are the same as an earlier one (line 13).",
        "3 training example(s) are also, or almost, in the validation set: evalLoss is too low (line 1, 4, 13).",
        "1 training example(s) are longer than 128 tokens and are cut there.",
    ]
    assert report.dataset.training is not None
    assert (report.dataset.training.examples, report.dataset.training.truncated) == (14, 1)


def test_the_memory_is_estimated_as_the_model_is_trained(workplace: Workplace, base: Path, tmp_path: Path) -> None:
    """What is counted from the files' headers is what peft makes of the model."""
    from finetune_trainer.model.adapters import load_trainable_model
    from finetune_trainer.model.loading import LocalModel

    adapter = Adapter(lora=LoRA(rank=4))
    report = preflight(workplace.preflight_run("memory", adapter=adapter), tmp_path)
    model = load_trainable_model(workplace.train_run("memory", adapter=adapter), LocalModel(base))
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    whole = sum(parameter.numel() for parameter in model.parameters()) - trained
    assert report.memory is not None
    assert (report.memory.weights, report.memory.adapter) == (2 * whole, 4 * trained)
    assert report.memory.accelerator is None
    assert report.dataset.warnings == []


@pytest.mark.parametrize(
    ("run", "packing"),
    [
        ({"on_accelerators": True}, True),
        ({}, False),
        ({"on_accelerators": True, "hyperparameters": Hyperparameters(packing=False)}, False),
        ({"on_accelerators": True, "hyperparameters": Hyperparameters(batch_size=4)}, False),
        ({"on_accelerators": True, "parallelism": Parallelism(nodes=32)}, False),  # it would halve the steps
    ],
)
def test_packing_is_chosen_on_accelerators(
    workplace: Workplace, tmp_path: Path, run: dict[str, Any], packing: bool
) -> None:
    lines = [*(question(number) for number in range(40)), chat("Why?", "Because it is so. " * 4)]
    dataset = workplace.dataset(training=TrainingData(uri=workplace.bucket.put_lines("data/uneven.jsonl", lines)))
    report = preflight(workplace.preflight_run("packing", dataset=dataset, **run), tmp_path)
    training = report.dataset.training
    assert training is not None
    assert report.packing is packing
    assert (training.rows is not None and training.rows < training.examples) is packing


def test_examples_as_long_as_the_longest_are_not_packed(workplace: Workplace, tmp_path: Path) -> None:
    report = preflight(workplace.preflight_run("even", on_accelerators=True), tmp_path)
    assert report.packing is False


@pytest.mark.parametrize("kind", ["bloom", "gemma2"])
def test_packing_is_not_chosen_for_a_model_that_mixes_or_masks(workplace: Workplace, tmp_path: Path, kind: str) -> None:
    """BLOOM's examples would see each other; Gemma 2's capped scores need a mask over all pairs of tokens."""
    folder = save(tmp_path / "model", kind)
    model = ModelSource(uri=workplace.bucket.put_folder(f"models/{kind}", folder))
    lines = [*(question(number) for number in range(40)), chat("Why?", "Because it is so. " * 4)]
    dataset = workplace.dataset(training=TrainingData(uri=workplace.bucket.put_lines("data/uneven.jsonl", lines)))
    run = workplace.preflight_run("mixed", model=model, dataset=dataset, on_accelerators=True)
    report = preflight(run, tmp_path / "scratch")
    assert report.packing is False


def test_too_little_memory_is_warned_of_and_not_refused(workplace: Workplace, tmp_path: Path) -> None:
    report = preflight(workplace.preflight_run("tight", accelerator_memory=2**18), tmp_path)
    assert report.memory is not None
    assert report.memory.accelerator == 2**18
    (warning,) = report.dataset.warnings
    assert "on each accelerator, which has 0.0 GiB: it may run out of memory." in warning
    stored = workplace.bucket.read(workplace.bucket.uri("tight/preflight.json"))
    assert PreflightReport.model_validate_json(stored) == report


def test_without_a_length_examples_are_cut_where_training_cuts_them(
    workplace: Workplace, base: Path, tmp_path: Path
) -> None:
    """A context beyond the longest automatic length is not used up."""
    folder = shutil.copytree(base, tmp_path / "model")
    edit("config.json", max_position_embeddings=32768)(folder)
    lines = [*(question(number) for number in range(12)), chat("Why?", "x" * 9000)]
    changes: dict[str, Any] = {
        "model": ModelSource(uri=workplace.bucket.put_folder("models/long", folder)),
        "dataset": workplace.dataset(training=TrainingData(uri=workplace.bucket.put_lines("data/long.jsonl", lines))),
    }
    automatic = preflight(workplace.preflight_run("automatic", **changes), tmp_path / "automatic")
    assert automatic.dataset.warnings == ["1 training example(s) are longer than 8192 tokens and are cut there."]
    asked = preflight(
        workplace.preflight_run("asked", **changes, hyperparameters=Hyperparameters(max_length=16384)),
        tmp_path / "asked",
    )
    assert asked.dataset.warnings == []


def test_a_batch_that_can_not_be_shared_is_refused_before_a_gpu_is_asked_for(
    workplace: Workplace, tmp_path: Path
) -> None:
    changes = {"hyperparameters": Hyperparameters(batch_size=3), "parallelism": Parallelism(nodes=2)}
    error = diagnosis(workplace, tmp_path, "shared", **changes).failure
    assert error.reason is Reason.INVALID_SPEC
    assert "batchSize 3 can't be divided over 2 processes" in error.message


def diagnosis(workplace: Workplace, directory: Path, output: str, **changes: Any) -> DiagnosedError:
    with pytest.raises(DiagnosedError) as refused:
        preflight(workplace.preflight_run(output, **changes), directory)
    return refused.value


def test_every_broken_line_is_reported_the_first_one_in_the_message(workplace: Workplace, tmp_path: Path) -> None:
    lines: list[Any] = [question(number) for number in range(12)]
    lines[6] = {"messages": [{"role": "user", "content": "1+1?"}, {"content": "2"}]}
    lines[9] = {"text": "2"}
    uri = workplace.bucket.put_lines("data/broken.jsonl", lines)
    error = diagnosis(workplace, tmp_path, "broken", dataset=workplace.dataset(training=TrainingData(uri=uri))).failure
    assert error.reason is Reason.DATASET_INVALID
    assert error.message == (
        f"Invalid file format. Line 7 of the training file {uri}: Message 2: Discriminator 'role' is missing in "
        "value. 1 more line(s) are broken. Correct the file and upload it again: it is checked again automatically."
    )
    assert error.dataset is not None
    assert error.dataset.error_count == 2
    assert error.dataset.errors == [
        DatasetError(file="training", line=7, message="Message 2: Discriminator 'role' is missing in value."),
        DatasetError(
            file="training",
            line=10,
            message="Unexpected file format, expected either prompt/completion pairs or chat messages.",
        ),
    ]
    stored = json.loads(workplace.bucket.read(workplace.bucket.uri("broken/preflight.json")))
    assert (stored["outcome"], stored["dataset"]["errorCount"]) == ("Failed", 2)


BROKEN_DATA: dict[str, tuple[list[Any], str]] = {
    "too few": (
        [question(number) for number in range(5)],
        "Training file has 5 example(s), but must have at least 10 examples. Add examples to "
        "s3://trainer/data/refused.jsonl and upload it again",
    ),
    "another format than validation": (
        [{"prompt": "1+1=", "completion": str(number)} for number in range(10)],
        "Unexpected file format, expected prompt/completion pairs, found chat messages.",
    ),
    "the answer beyond the context": (
        [*(question(number) for number in range(10)), chat("Why? " * 60, "Because.")],
        "Line 11 of the training file s3://trainer/data/refused.jsonl: Nothing is left to learn from after 128 tokens",
    ),
}


@pytest.mark.parametrize(("lines", "message"), BROKEN_DATA.values(), ids=BROKEN_DATA)
def test_data_that_can_not_be_learned_from_is_refused(
    workplace: Workplace, tmp_path: Path, lines: list[Any], message: str
) -> None:
    uri = workplace.bucket.put_lines("data/refused.jsonl", lines)
    dataset = workplace.dataset(training=TrainingData(uri=uri))
    error = diagnosis(workplace, tmp_path, "refused", dataset=dataset).failure
    assert error.reason is Reason.DATASET_INVALID
    assert message in error.message


def edit(file: str, **changes: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        config = json.loads((folder / file).read_bytes()) | changes
        (folder / file).write_text(json.dumps(config))

    return change


def pickled(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def without_template(folder: Path) -> None:
    (folder / "chat_template.jinja").unlink()


def strict_template(folder: Path) -> None:
    (folder / "chat_template.jinja").write_text("{{ raise_exception('System messages only.') }}")


BROKEN_MODELS: dict[str, tuple[Callable[[Path], None], Reason, str]] = {
    "pickle": (pickled, Reason.MODEL_INVALID, "has only pytorch_model.bin, which can run code when loaded"),
    "no weights": (
        lambda folder: (folder / "model.safetensors").unlink(),
        Reason.MODEL_INVALID,
        "has no weights. Store the weights as safetensors",
    ),
    "no safetensors inside": (
        lambda folder: (folder / "model.safetensors").write_bytes(b"\xff" * 64),
        Reason.MODEL_INVALID,
        "model.safetensors is not a safetensors file.",
    ),
    "no config": (
        lambda folder: (folder / "config.json").unlink(),
        Reason.MODEL_INVALID,
        "has no config.json: it must be a Hugging Face model folder.",
    ),
    "an adapter alone": (
        lambda folder: (folder / "config.json").rename(folder / "adapter_config.json"),
        Reason.MODEL_INVALID,
        "is a peft adapter, not a whole model. Name the job that made it as model.fineTuneJobRef",
    ),
    "remote code": (
        edit("config.json", auto_map={"AutoModelForCausalLM": "modeling_evil.Evil"}),
        Reason.MODEL_INVALID,
        "config.json has an auto_map",
    ),
    "remote code in the tokenizer": (
        edit("tokenizer_config.json", auto_map={"AutoTokenizer": ["evil.Evil", None]}),
        Reason.MODEL_INVALID,
        "tokenizer_config.json has an auto_map",
    ),
    "unknown architecture": (
        edit("config.json", model_type="next-year"),
        Reason.MODEL_INVALID,
        "The config of s3://trainer/models/broken does not load",
    ),
    "no causal model": (
        edit("config.json", model_type="vit", architectures=["ViTModel"]),
        Reason.MODEL_INVALID,
        "is a 'vit' model, which is neither a causal language model nor a vision-language model.",
    ),
    "broken tokenizer": (
        lambda folder: (folder / "tokenizer.json").write_text("{}"),
        Reason.MODEL_INVALID,
        "The tokenizer does not load",
    ),
    "no chat template": (without_template, Reason.MODEL_INVALID, "has no chat template"),
    "a template that refuses the examples": (
        strict_template,
        Reason.DATASET_INVALID,
        "The model's chat template refuses the example: System messages only.",
    ),
}


@pytest.mark.parametrize(("spoil", "reason", "message"), BROKEN_MODELS.values(), ids=BROKEN_MODELS)
def test_a_model_that_can_not_be_used_is_refused(
    workplace: Workplace,
    base: Path,
    storage: Storage,
    tmp_path: Path,
    spoil: Callable[[Path], object],
    reason: Reason,
    message: str,
) -> None:
    folder = shutil.copytree(base, tmp_path / "model")
    spoil(folder)
    old = parse_s3(workplace.bucket.uri("models/broken"))
    storage.delete([old.join(item.path) for item in storage.list_objects(old)])
    model = ModelSource(uri=workplace.bucket.put_folder("models/broken", folder))
    error = diagnosis(workplace, tmp_path / "preflight", "broken-model", model=model).failure
    assert (error.reason, message in error.message) == (reason, True), error.message


def test_what_is_not_there_is_named(workplace: Workplace, tmp_path: Path) -> None:
    bucket = workplace.bucket
    for changes, reason, uri in (
        (
            {"dataset": workplace.dataset(training=TrainingData(uri=bucket.uri("none.jsonl")))},
            Reason.DATASET_NOT_FOUND,
            "s3://trainer/none.jsonl",
        ),
        (
            {"dataset": workplace.dataset(validation=ValidationData(uri="s3://no-such-bucket/valid.jsonl"))},
            Reason.DATASET_NOT_FOUND,
            "s3://no-such-bucket/valid.jsonl",
        ),
        ({"model": ModelSource(uri=bucket.uri("models/none"))}, Reason.MODEL_NOT_FOUND, "s3://trainer/models/none"),
        ({"output_uri": "s3://no-such-bucket/run"}, Reason.BUCKET_NOT_FOUND, "'no-such-bucket'"),
    ):
        error = diagnosis(workplace, tmp_path, "absent", **changes).failure
        assert error.reason is reason
        assert uri in error.message
        assert (workplace.bucket.storage.endpoint or "AWS") in error.message, "who was asked for it"


def test_a_model_that_is_not_there_is_reported_before_a_line_is_read(
    workplace: Workplace, base: Path, tmp_path: Path
) -> None:
    """A large dataset takes minutes to read, and nothing of them would be of use."""
    folder = shutil.copytree(base, tmp_path / "model")
    for missing in ("model.safetensors", "config.json"):
        (folder / missing).unlink()
        model = ModelSource(uri=workplace.bucket.put_folder(f"models/without-{missing}", folder))
        error = diagnosis(workplace, tmp_path / missing, "absent", model=model).failure
        assert error.reason is Reason.MODEL_INVALID
        assert not (tmp_path / missing).exists(), "nothing was fetched"
    model = ModelSource(uri=workplace.bucket.uri("models/none"))
    error = diagnosis(workplace, tmp_path / "none", "absent", model=model).failure
    assert error.reason is Reason.MODEL_NOT_FOUND
    assert not (tmp_path / "none").exists()


def test_a_length_beyond_the_context_is_refused(workplace: Workplace, tmp_path: Path) -> None:
    error = diagnosis(workplace, tmp_path, "long", hyperparameters=Hyperparameters(max_length=129)).failure
    assert error.reason is Reason.INVALID_SPEC
    assert "maxLength is 129, beyond the model's context of 128 tokens" in error.message


def test_wrong_credentials_end_preflight_at_its_first_request(
    workplace: Workplace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    assert diagnosis(workplace, tmp_path, "denied").failure.reason is Reason.STORAGE_DENIED
    assert not any(tmp_path.iterdir())


def test_an_endpoint_that_never_answers_is_not_waited_for_in_the_pod(
    workplace: Workplace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retries, "UNANSWERED_SECONDS", 0)
    nowhere = StorageConfig(
        endpoint="http://127.0.0.1:9", region="us-east-1", path_style=True, outage_tolerance_seconds=600
    )
    error = diagnosis(workplace, tmp_path, "unreachable", storage=nowhere).failure
    assert (error.reason, error.retryable) == (Reason.STORAGE_UNREACHABLE, True)
