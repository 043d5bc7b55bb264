"""Fine-tuning of a vision-language model on images of a dataset, from JSON Lines to the committed result."""

from __future__ import annotations

import json
import multiprocessing
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader
from transformers import AutoModelForImageTextToText, AutoProcessor

from finetune_api.conditions import Reason
from finetune_api.evaluation import BASELINE, Generation
from finetune_api.finetunejob import Adapter, TrainingData, ValidationData
from finetune_api.graders import Grader
from finetune_api.pod_contracts.run import EvaluateRun, ModelSource, NamedModel
from finetune_trainer.data.encode.tokenization import IGNORED
from finetune_trainer.data.encode.vision import VisionCollator, to_record, to_rows, too_many_image_tokens
from finetune_trainer.data.images.images import load
from finetune_trainer.data.read.reader import parse_example
from finetune_trainer.evaluation.evaluate import evaluate
from finetune_trainer.model.loading import fetch_model, load_model, load_processor
from finetune_trainer.preflight.preflight import preflight
from finetune_trainer.process.failures import DiagnosedError, DisruptedError
from finetune_trainer.storage.storage import Storage
from finetune_trainer.train import build_trainer
from tests.integration.trainer.runs import JOB, Workplace, stopped_after_first_checkpoint, train_here
from tests.integration.trainer_evaluation.tiny_models import chat
from tests.integration.trainer_evaluation.tiny_vision_models import (
    COLOURS,
    IMAGE_TOKENS,
    data_uri,
    make_processor,
    png,
    save_vision_model,
    seen,
)


@pytest.fixture(scope="module")
def vision(workplace: Workplace, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A model that sees, and a dataset whose images lie in the lines and in the bucket; some lines have none."""
    bucket = workplace.bucket
    folder = save_vision_model(tmp_path_factory.mktemp("vision"), seed=1)
    stored = {colour: bucket.put(f"images/{colour}.png", png(colour)) for colour in COLOURS}
    lines = []
    for number in range(8):
        for colour in COLOURS:
            url = stored[colour] if number % 2 else data_uri(png(colour, (30 + number, 40)))
            lines.append(seen(url, colour))
        lines.append(chat("Hello?", "hi"))
    held_out = [seen(data_uri(png(colour, (33, 33))), colour) for colour in COLOURS]
    return {
        "model": ModelSource(uri=bucket.put_folder("models/vision", folder)),
        "dataset": workplace.dataset(
            training=TrainingData(uri=bucket.put_lines("data/seen.jsonl", lines)),
            validation=ValidationData(uri=bucket.put_lines("data/seen-valid.jsonl", held_out)),
        ),
        "allowed_images": [bucket.uri("images/*")],
    }


def answer(model: Any, processor: Any, colour: str, tmp_path: Path) -> str:
    (tmp_path / "asked.png").write_bytes(png(colour, (50, 50)))
    prompt = processor.apply_chat_template(
        [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What colour?"}]}],
        add_generation_prompt=True,
        tokenize=False,
    )
    inputs = processor(
        text=prompt, images=[load(tmp_path / "asked.png")], add_special_tokens=False, return_tensors="pt"
    )
    stop = processor.tokenizer.convert_tokens_to_ids("<|im_end|>")
    with torch.inference_mode():
        tokens = model.generate(**inputs, max_new_tokens=8, do_sample=False, eos_token_id=stop)
    return str(processor.decode(tokens[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True))


def test_every_weight_trained_the_model_says_what_it_sees(
    workplace: Workplace, vision: dict[str, Any], storage: Storage, tmp_path: Path
) -> None:
    run = workplace.train_run(
        "vision/full",
        {"epochs": 8.0, "batch_size": 8, "learning_rate": 3e-3, "checkpoint_every_steps": 40, "max_length": 128},
        adapter=Adapter(type="Full"),
        **vision,
    )
    report = train_here(run, tmp_path / "train")
    local = fetch_model(ModelSource(uri=report.result.uri, digest=report.result.digest), storage, tmp_path / "tuned")
    model = AutoModelForImageTextToText.from_pretrained(local.base)
    processor = AutoProcessor.from_pretrained(local.base)
    assert {colour: answer(model, processor, colour, tmp_path) for colour in COLOURS} == {c: c for c in COLOURS}

    held_out = [seen(data_uri(png(colour, (64, 48))), colour) for colour in COLOURS]
    evaluation = EvaluateRun(
        job=JOB,
        storage=workplace.bucket.storage,
        output_uri=workplace.bucket.uri("vision/judged"),
        models=[
            NamedModel(name=BASELINE, model=vision["model"]),
            NamedModel(name="tuned", model=ModelSource(uri=report.result.uri, digest=report.result.digest)),
        ],
        dataset_uri=workplace.bucket.put_lines("data/vision-judged.jsonl", [*held_out, chat("Hello?", "hi")]),
        graders=[Grader.from_wire({"name": "exact", "type": "StringCheck", "stringCheck": {}})],
        generation=Generation(max_tokens=8),
    )
    scores = {score.candidate: score.score for score in evaluate(evaluation).scores}
    assert scores == {BASELINE: 0.0, "tuned": 1.0}


def test_an_adapter_is_of_the_language_model_and_loads_on_the_base(
    workplace: Workplace, vision: dict[str, Any], storage: Storage, tmp_path: Path
) -> None:
    report = train_here(workplace.train_run("vision/lora", {"packing": True}, **vision), tmp_path / "train")
    losses = [float(row["train_loss"]) for row in workplace.results("vision/lora")]
    assert sum(losses[-3:]) < 0.7 * sum(losses[:3])
    source = ModelSource(uri=vision["model"].uri, adapter_uri=report.result.uri, digest=report.result.digest)
    local = fetch_model(source, storage, tmp_path / "tuned")
    weights = [name for name in load_model(local, torch.float32).state_dict() if "lora_" in name]
    assert weights
    assert all(".language_model." in name for name in weights)
    assert load_processor(local).image_token == "<image>"


def test_only_the_answer_carries_loss_and_an_image_takes_its_tokens(tmp_path: Path) -> None:
    processor = make_processor()
    processor.tokenizer.pad_token = processor.tokenizer.eos_token
    (tmp_path / "red.png").write_bytes(png("red"))
    lines = [seen("s3://images/red.png", "red"), chat("Hello?", "hi")]
    examples = [parse_example(json.dumps(line).encode()) for line in lines]
    files = [[tmp_path / "red.png"], []]
    records = [
        to_record(row)
        for example, of_example in zip(examples, files, strict=True)
        for row in to_rows(processor, example, of_example)
    ]
    batch = VisionCollator(processor, 128)(records)
    learned = [[token for token in row.tolist() if token != IGNORED] for row in batch["labels"]]
    assert [processor.tokenizer.decode(ids) for ids in learned] == ["red<|im_end|>", "hi<|im_end|>"]
    assert (batch["input_ids"] == processor.image_token_id).sum(dim=1).tolist() == [IMAGE_TOKENS, 0]
    assert batch["pixel_values"].shape[0] == 1
    with pytest.raises(DiagnosedError, match="beyond the 10 of maxLength"):
        VisionCollator(processor, 10)(records)


WORKERS = 2


@pytest.fixture
def image_workers(monkeypatch: pytest.MonkeyPatch) -> list[DataLoader[Any]]:
    """Batches are made in processes, as on a GPU; the loaders that had some."""
    seen: list[DataLoader[Any]] = []
    begin = DataLoader.__iter__

    def watched(loader: DataLoader[Any]) -> Any:
        seen.extend([loader] if loader.num_workers == WORKERS else [])
        return begin(loader)

    monkeypatch.setattr(DataLoader, "__iter__", watched)
    monkeypatch.setattr(build_trainer, "_image_workers", lambda attempt, inputs: WORKERS)
    return seen


def test_batches_that_processes_make_are_the_same_and_go_on_where_a_run_was_interrupted(
    workplace: Workplace,
    vision: dict[str, Any],
    tmp_path: Path,
    image_workers: list[DataLoader[Any]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = {"batch_size": 8, "epochs": 1.0, "checkpoint_every_steps": 3}
    with monkeypatch.context() as patch:
        patch.setattr(build_trainer, "_image_workers", lambda attempt, inputs: 0)
        train_here(workplace.train_run("vision/one-process", settings, **vision), tmp_path / "one")
    assert not image_workers
    train_here(workplace.train_run("vision/workers", settings, **vision), tmp_path / "workers")
    assert image_workers
    run = workplace.train_run("vision/interrupted", settings, **vision)
    with stopped_after_first_checkpoint(), pytest.raises(DisruptedError):
        train_here(run, tmp_path / "first")
    train_here(run, tmp_path / "second")
    expected = workplace.results("vision/one-process")
    for output in ("vision/workers", "vision/interrupted"):
        rows = workplace.results(output)
        assert [(row["train_loss"], row["valid_loss"]) for row in rows] == [
            (row["train_loss"], row["valid_loss"]) for row in expected
        ]
    assert not multiprocessing.active_children()


def test_what_a_process_refuses_is_reported_as_the_training_itself_would(tmp_path: Path) -> None:
    processor = make_processor()
    processor.tokenizer.pad_token = processor.tokenizer.eos_token
    (tmp_path / "red.png").write_bytes(png("red"))
    example = parse_example(json.dumps(seen("s3://images/red.png", "red")).encode())
    records: Any = [to_record(row) for row in to_rows(processor, example, [tmp_path / "red.png"])]
    loader = DataLoader(records, collate_fn=VisionCollator(processor, 10), num_workers=1)
    with pytest.raises(DiagnosedError) as refused:
        next(iter(loader))
    assert refused.value.failure.reason is Reason.DATASET_INVALID
    assert str(refused.value) == refused.value.failure.message == too_many_image_tokens(11, 10)


KILLED = """
from torch.utils.data import DataLoader
import multiprocessing, signal
if __name__ == "__main__":
    batches = iter(DataLoader(range(9), num_workers=2, prefetch_factor=1))
    next(batches)
    print(*(process.pid for process in multiprocessing.active_children()), flush=True)
    signal.pause()
"""


def test_processes_that_make_batches_end_with_a_training_that_is_killed() -> None:
    with subprocess.Popen([sys.executable, "-c", KILLED], stdout=subprocess.PIPE, text=True) as training:
        assert training.stdout is not None
        workers = [int(number) for number in training.stdout.readline().split()]
        training.kill()
    assert len(workers) == 2
    deadline = time.monotonic() + 120
    while any(map(runs, workers)):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def runs(process: int) -> bool:
    """Whether a process is there, and no zombie that nobody has waited for."""
    try:
        return "(zombie)" not in Path(f"/proc/{process}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


REFUSED = {
    "not allowed": (
        "s3://other/images/red.png",
        r"Image 1 \(s3://other.*\): the class's sources.datasets do not allow",
    ),
    "not there": ("s3://trainer/images/none.png", "nothing is there"),
    "broken": (data_uri(png("red")[:60]), "it is broken"),
    "from the web": ("https://example.com/red.png", "sources.images do not allow it"),
}


@pytest.mark.parametrize(("url", "message"), REFUSED.values(), ids=REFUSED)
def test_an_image_that_can_not_be_used_is_reported_with_its_line(
    workplace: Workplace, vision: dict[str, Any], tmp_path: Path, url: str, message: str
) -> None:
    lines = [chat("Hello?", "hi"), seen(url, "red"), *[chat("Hello?", "hi")] * 8]
    data = TrainingData(uri=workplace.bucket.put_lines("data/refused-images.jsonl", lines))
    settings = {**vision, "dataset": workplace.dataset(training=data, validation=None)}
    with pytest.raises(DiagnosedError, match=f"Line 2 of .*: .*{message}") as refused:
        train_here(workplace.train_run("vision/refused", **settings), tmp_path)
    assert refused.value.failure.reason is Reason.DATASET_INVALID


def test_preflight_counts_the_tokens_of_images(workplace: Workplace, vision: dict[str, Any], tmp_path: Path) -> None:
    report = preflight(workplace.preflight_run("vision/preflight", **vision), tmp_path)
    assert report.dataset.training is not None
    assert report.dataset.training.examples == 40
    text = "<|im_start|>user\n<image>\nWhat colour?<|im_end|>\n<|im_start|>assistant\ngreen<|im_end|>\n"
    of_text = len(make_processor().tokenizer(text)["input_ids"])
    assert report.dataset.training.max_tokens == of_text - 1 + IMAGE_TOKENS
    assert report.model.architecture == "LlavaForConditionalGeneration"


def test_preflight_names_the_lines_whose_images_are_bad(
    workplace: Workplace, vision: dict[str, Any], tmp_path: Path
) -> None:
    lines = [seen(data_uri(png("red")), "red") for _ in range(10)]
    lines[3] = seen(data_uri(b"GIF89a"), "red")
    lines[7] = seen("https://169.254.169.254/latest/meta-data", "red")
    data = TrainingData(uri=workplace.bucket.put_lines("data/bad-images.jsonl", lines))
    settings = {
        **vision,
        "dataset": workplace.dataset(training=data, validation=None),
        "allowed_images": ["https://*"],
    }
    with pytest.raises(DiagnosedError, match="Line 4 of the training file") as refused:
        preflight(workplace.preflight_run("vision/bad", **settings), tmp_path)
    assert refused.value.failure.dataset is not None
    errors = [(error.line, error.message) for error in refused.value.failure.dataset.errors]
    assert [line for line, _ in errors] == [4, 8]
    assert "it is no JPEG, PNG or WEBP" in errors[0][1]
    assert "169.254.169.254 is not a host on the public internet" in errors[1][1]


def test_images_are_refused_by_a_model_of_text(workplace: Workplace, tmp_path: Path) -> None:
    data = TrainingData(uri=workplace.bucket.put_lines("data/unseen.jsonl", [seen(data_uri(png("red")), "red")] * 10))
    dataset = workplace.dataset(training=data, validation=None)
    with pytest.raises(DiagnosedError, match=r"Line 1 of .*the model reads only text"):
        train_here(workplace.train_run("vision/text", dataset=dataset), tmp_path)
