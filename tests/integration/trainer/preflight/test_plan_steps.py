"""The plan counts what the trainer does: `resolved.totalSteps` is `state.max_steps`, whatever becomes a row."""

from __future__ import annotations

import itertools
import json
import math
import random
from pathlib import Path
from typing import Any

import pytest
import yaml
from transformers import AutoModelForCausalLM, LlamaConfig
from trl import chat_template_utils as published

from finetune_api.finetunejob import ResolvedHyperparameters
from finetune_api.pod_contracts.outcome import PreflightReport
from finetune_api.pod_contracts.run import ModelSource
from finetune_trainer.local.job_file import LocalJob, read_job
from finetune_trainer.local.training import preflight_run, train_run
from finetune_trainer.preflight.preflight import preflight
from finetune_trainer.process.failures import DiagnosedError
from tests.integration.trainer.runs import train_here
from tests.unit.trainer.data.encode.chat_templates import CHATML, make_tokenizer

WORDS = ["two", "and", "four", "is", "five", "hello", "how", "are", "you"]


def save(folder: Path, template: str) -> Path:
    tokenizer = make_tokenizer()
    tokenizer.chat_template = template
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=512,
        eos_token_id=1,
        pad_token_id=2,
        bos_token_id=0,
    )
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Of a template that only appends, and of one that rewrites earlier turns."""
    folder = tmp_path_factory.mktemp("models")
    return {"appends": save(folder / "a", CHATML), "rewrites": save(folder / "r", published.qwen3_chat_template)}


def text(chance: random.Random) -> str:
    return " ".join(chance.choices(WORDS, k=chance.randint(1, 30)))


def line(chance: random.Random, method: str) -> dict[str, Any]:
    if method == "DPO":
        return {"prompt": text(chance), "chosen": text(chance) + "!", "rejected": text(chance) + "?"}
    turns = chance.randint(1, 4)
    pairs = [({"role": "user", "content": text(chance)}, {"role": "assistant", "content": text(chance)})] * turns
    return {"messages": [message for pair in pairs for message in pair]}


def job(folder: Path, model: Path, lines: list[dict[str, Any]], **spec: Any) -> Path:
    (folder / "train.jsonl").write_text("".join(json.dumps(one) + "\n" for one in lines))
    made = {
        "apiVersion": "finetune.dev/v1alpha1",
        "kind": "FineTuneJob",
        "metadata": {"name": "planned"},
        "spec": {"model": {"uri": str(model)}, "dataset": {"training": {"uri": "train.jsonl"}}, **spec},
    }
    (folder / "job.yaml").write_text(yaml.safe_dump(made))
    return folder / "job.yaml"


def model_of(read: LocalJob) -> ModelSource:
    return ModelSource(uri=str(read.spec.model.uri))


def examined(file: Path, folder: Path) -> PreflightReport:
    read = read_job(file)
    return preflight(preflight_run(read, folder / "out", model_of(read)), folder / "preflight")


def planned_and_done(file: Path, folder: Path) -> tuple[ResolvedHyperparameters, int]:
    """The plan, and the number of the last checkpoint, which is the last step's."""
    found = examined(file, folder)
    read = read_job(file)
    run = train_run(read, folder / "out", found, model_of(read))
    report = train_here(run, folder / "train")
    return run.hyperparameters, max(checkpoint.step for checkpoint in report.checkpoints)


@pytest.mark.parametrize(
    ("method", "template", "packing"),
    [
        *itertools.product(["SFT", "weighted"], ["appends", "rewrites"], [False, True]),
        ("DPO", "appends", False),  # which does not pack
    ],
)
def test_the_plan_is_what_the_trainer_does(
    tmp_path: Path, models: dict[str, Path], method: str, template: str, packing: bool
) -> None:
    """Some conversations are longer than maxLength: of those a part of the rows has nothing to learn left."""
    chance = random.Random(f"{method} {template}")
    name = "DPO" if method == "DPO" else "SFT"
    spec: dict[str, Any] = {"type": name} | ({"sft": {"promptLossWeight": 0.1}} if method == "weighted" else {})
    settings = {"epochs": 1.5, "batchSize": 3, "maxLength": 256, "packing": packing}
    lines = [line(chance, name) for _ in range(25)]
    file = job(tmp_path, models[template], lines, method=spec, hyperparameters=settings, checkpoints={"keep": 1})
    plan, done = planned_and_done(file, tmp_path)
    assert plan.total_steps == done
    assert plan.batch_tokens == (3 * 256 if packing else None)


@pytest.mark.parametrize("template", ["appends", "rewrites"])
def test_the_plan_with_packing_that_preflight_chose_is_what_the_trainer_does(
    tmp_path: Path, models: dict[str, Path], template: str
) -> None:
    chance = random.Random(template)
    file = job(tmp_path, models[template], [line(chance, "SFT") for _ in range(60)], checkpoints={"keep": 1})
    read = read_job(file)
    asked = preflight_run(read, tmp_path / "out", model_of(read)).model_copy(update={"on_accelerators": True})
    found = preflight(asked, tmp_path / "preflight")
    assert found.dataset.training is not None
    assert found.packing
    plan = train_run(read, tmp_path / "out", found, model_of(read))
    assert plan.hyperparameters.packing
    short = plan.model_copy(update={"hyperparameters": plan.hyperparameters.model_copy(update={"epochs": 1.0})})
    report = train_here(short, tmp_path / "train")
    rows, batch = found.dataset.training.rows, plan.hyperparameters.batch_size
    assert rows is not None
    assert max(checkpoint.step for checkpoint in report.checkpoints) == math.ceil(rows / batch)


def test_a_run_of_one_step_learns(tmp_path: Path, models: dict[str, Path]) -> None:
    chance = random.Random(1)
    lines = [line(chance, "SFT") for _ in range(10)]
    file = job(tmp_path, models["appends"], lines, hyperparameters={"epochs": 1, "batchSize": 16, "maxLength": 512})
    found = examined(file, tmp_path)
    assert any(
        "batchSize is 16, and there are 10 rows to train on: each epoch is one step" in warning
        for warning in found.dataset.warnings
    )
    plan, done = planned_and_done(file, tmp_path)
    assert (plan.total_steps, done) == (1, 1)


def test_a_result_equal_to_its_base_is_an_error(tmp_path: Path, models: dict[str, Path]) -> None:
    chance = random.Random(1)
    settings = {"epochs": 1, "batchSize": 5, "maxLength": 512, "learningRate": 1e-300}
    file = job(tmp_path, models["appends"], [line(chance, "SFT") for _ in range(10)], hyperparameters=settings)
    with pytest.raises(DiagnosedError, match="Training changed no weight") as told:
        planned_and_done(file, tmp_path)
    assert (told.value.failure.reason, told.value.failure.retryable) == ("InvalidSpec", False)


def test_pairs_that_are_the_same_tokens_are_reported_by_line(tmp_path: Path, models: dict[str, Path]) -> None:
    template = CHATML.replace("message['content']", "message['content'] | trim")
    model = save(tmp_path / "trims", template)
    lines = [line(random.Random(number), "DPO") for number in range(12)]
    asked = [{"role": "user", "content": "two?"}]
    sides = [[{"role": "assistant", "content": answer}] for answer in ("four", " four ")]
    pairs = [
        {
            "prompt": [{"role": "user", "content": one["prompt"]}],
            "chosen": [{"role": "assistant", "content": one["chosen"]}],
            "rejected": [{"role": "assistant", "content": one["rejected"]}],
        }
        for one in lines
    ]
    pairs[6] = {"prompt": asked, "chosen": sides[0], "rejected": sides[1]}
    file = job(tmp_path, model, pairs, method={"type": "DPO"})
    with pytest.raises(DiagnosedError, match=r"Line 7 of .*The two answers are the same as tokens"):
        examined(file, tmp_path)


def test_what_the_template_leaves_out_asks_for_another_model_and_not_for_another_file(
    tmp_path: Path, models: dict[str, Path]
) -> None:
    tools = [{"type": "function", "function": {"name": "add"}}]
    lines = [{**line(random.Random(number), "SFT"), "tools": tools} for number in range(10)]
    file = job(tmp_path, models["appends"], lines)
    with pytest.raises(DiagnosedError, match="leaves out the tools") as told:
        examined(file, tmp_path)
    assert "name another model, or the same one with another template" in told.value.failure.message
    assert "Correct the file" not in told.value.failure.message


def test_every_attempt_sees_the_date_of_the_first_preflight(tmp_path: Path, models: dict[str, Path]) -> None:
    from finetune_api.sources import parse_location
    from finetune_trainer.data.select.dataset_record import find_record
    from finetune_trainer.storage.open_storage import open_storage

    file = job(tmp_path, models["appends"], [line(random.Random(number), "SFT") for number in range(10)])
    read = read_job(file)
    run = preflight_run(read, tmp_path / "out", model_of(read))
    times = []
    for number in range(2):
        preflight(run, tmp_path / f"preflight-{number}")
        found = find_record(open_storage(run.storage), parse_location(run.output_uri))
        assert found is not None
        times.append(found.record.rendered_at)
    assert times[0] is not None
    assert times[0] == times[1]
