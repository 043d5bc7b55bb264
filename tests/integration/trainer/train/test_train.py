"""Training from the run configuration to the committed result, on a real S3 with a real model, however small."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load, load_file, save_file
from transformers import AutoModelForCausalLM

from finetune_api.conditions import Reason
from finetune_api.finetunejob import Adapter, Best, Checkpoints, Limit, LoRA, TrainingData, ValidationData
from finetune_api.pod_contracts.manifest import Manifest
from finetune_api.pod_contracts.run import ModelSource
from finetune_api.sources import parse_s3
from finetune_trainer.checkpoint import checkpoints
from finetune_trainer.model.loading import fetch_model, load_model, load_tokenizer
from finetune_trainer.process.failures import DiagnosedError
from finetune_trainer.storage.storage import Storage
from tests.integration.trainer.runs import Workplace, train_here


@pytest.fixture(scope="module")
def lora(workplace: Workplace, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return train_here(workplace.train_run("lora"), tmp_path_factory.mktemp("lora"))


def test_the_loss_falls_on_what_is_trained_and_on_what_is_held_out(workplace: Workplace, lora: Any) -> None:
    rows = workplace.results("lora")
    assert [int(row["step"]) for row in rows] == list(range(1, 21))
    losses = [float(row["train_loss"]) for row in rows]
    assert sum(losses[-3:]) < 0.7 * sum(losses[:3])
    measured = [(int(row["step"]), float(row["valid_loss"])) for row in rows if row["valid_loss"]]
    assert [step for step, _ in measured] == [10, 20]
    assert measured[1][1] < measured[0][1]
    assert lora.result.eval_loss == measured[1][1]
    assert lora.result.train_loss == losses[-1]


def test_the_result_is_an_adapter_that_loads_on_the_base(
    workplace: Workplace, lora: Any, storage: Storage, tmp_path: Path
) -> None:
    assert lora.result.uri == workplace.bucket.uri("lora/result/claim-000001")
    assert lora.result.adapter_type == "LoRA"
    assert lora.result.step == 20
    source = ModelSource(uri=workplace.model, adapter_uri=lora.result.uri, digest=lora.result.digest)
    local = fetch_model(source, storage, tmp_path)
    assert local.adapter is not None
    config = json.loads((local.adapter / "adapter_config.json").read_bytes())
    assert (config["r"], config["base_model_name_or_path"]) == (4, workplace.model)
    weights = load_model(local, torch.float32).state_dict()
    assert any(weights[name].abs().max() > 0 for name in weights if "lora_B" in name)
    assert not list(local.adapter.glob("*.bin")) + list(local.adapter.glob("*.pt"))


def test_checkpoints_hold_what_resuming_needs_and_no_pickle(workplace: Workplace, lora: Any, storage: Storage) -> None:
    assert [checkpoint.step for checkpoint in lora.checkpoints] == [10, 20]
    manifest = Manifest.model_validate_json(workplace.bucket.read(f"{lora.checkpoints[0].uri}/manifest.json"))
    assert {file.path for file in manifest.files} == {
        "model/shard-00001-of-00001.safetensors",
        "optimizer/shard-00001-of-00001.safetensors",
        "rng/rank-00000.json",
        "schedule.json",
        "trainer_state.json",
    }
    first, _ = checkpoints.list_committed(storage, parse_s3(workplace.bucket.uri("lora")))
    assert first.manifest.metrics["evalLoss"] > 0  # evaluated after it was committed: the next one tells


def test_events_have_a_line_for_each_step_and_checkpoint_from_start_to_result(workplace: Workplace, lora: Any) -> None:
    lines = workplace.bucket.read(workplace.bucket.uri("lora/events.jsonl")).splitlines()
    messages = [json.loads(line)["message"] for line in lines]
    losses = [message for message in messages if message.startswith("Step ")]
    assert len(losses) == 20
    assert re.fullmatch(r"Step 1/20: training loss=\d\.\d\d", losses[0])
    assert re.fullmatch(r"Step 20/20: training loss=\d\.\d\d, validation loss=\d\.\d\d", losses[-1])
    assert [message for message in messages if message not in losses] == [
        "Fine-tuning job started",
        "Checkpoint of step 10 committed",
        "Checkpoint of step 20 committed",
        "New fine-tuned model created",
        "The job has successfully completed",
    ]


def test_the_result_tells_a_person_and_a_hub_what_it_is(workplace: Workplace, lora: Any) -> None:
    card = workplace.bucket.read(f"{lora.result.uri}/README.md").decode()
    digest = hashlib.sha256(workplace.bucket.read(workplace.training)).hexdigest()
    assert f"| {workplace.training} | sha256:{digest} |" in card
    assert f"| validation loss | {lora.result.eval_loss} |" in card
    assert lora.result.report_uri == f"{lora.result.uri}/report.html"
    report = workplace.bucket.read(lora.result.report_uri).decode()
    for text in ("What is 40 plus 5?", "generated greedily", "the result; ", "Accuracy of tokens", "torch"):
        assert text in report


def test_accuracy_of_tokens_is_measured_with_each_loss(workplace: Workplace, lora: Any) -> None:
    rows = workplace.results("lora")
    assert all(0 <= float(row["train_mean_token_accuracy"]) <= 1 for row in rows)
    measured = [row for row in rows if row["valid_loss"]]
    assert [(row["full_valid_loss"], row["full_valid_mean_token_accuracy"]) for row in measured] == [
        (row["valid_loss"], row["valid_mean_token_accuracy"]) for row in measured
    ]
    assert all(0 <= float(row["valid_mean_token_accuracy"]) <= 1 for row in measured)


def test_a_run_that_is_complete_is_reported_and_not_trained_again(
    workplace: Workplace, lora: Any, tmp_path: Path
) -> None:
    again = train_here(workplace.train_run("lora", attempt=2), tmp_path)
    assert again.result == lora.result
    assert again.checkpoints == lora.checkpoints
    assert not list(tmp_path.iterdir())


def test_a_run_that_died_before_its_result_makes_it_from_the_last_checkpoint(
    workplace: Workplace, storage: Storage, tmp_path: Path
) -> None:
    run = workplace.train_run("died")
    first = train_here(run, tmp_path / "first")
    folder = parse_s3(first.result.uri)
    storage.delete([folder.join(item.path) for item in storage.list_objects(folder)])
    again = train_here(run.model_copy(update={"attempt": 2}), tmp_path / "again")
    assert again.result.step == 20
    assert again.result.train_loss == first.result.train_loss
    assert len(workplace.results("died")) == 20


def test_full_fine_tuning_makes_a_whole_model(workplace: Workplace, storage: Storage, tmp_path: Path) -> None:
    run = workplace.train_run("full", adapter=Adapter(type="Full"), dataset=workplace.dataset(validation=None))
    report = train_here(run, tmp_path / "train")
    assert report.result.adapter_type == "Full"
    assert report.result.eval_loss is None
    local = fetch_model(ModelSource(uri=report.result.uri, digest=report.result.digest), storage, tmp_path / "tuned")
    tuned = load_model(local, torch.float32).state_dict()
    base = load_model(fetch_model(run.model, storage, tmp_path / "base"), torch.float32).state_dict()
    assert tuned.keys() == base.keys()
    assert all(not torch.equal(tuned[name], base[name]) for name in base)
    assert (local.base / "chat_template.jinja").exists()


def test_a_whole_model_is_stored_in_the_precision_of_its_base(
    workplace: Workplace, storage: Storage, base: Path, tmp_path: Path
) -> None:
    """It is trained in float32, which would be twice the size."""
    half = tmp_path / "half"
    AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16).save_pretrained(half)
    load_tokenizer(base).save_pretrained(half)
    model = ModelSource(uri=workplace.bucket.put_folder("models/half", half))
    report = train_here(workplace.train_run("halved", model=model, adapter=Adapter(type="Full")), tmp_path / "train")
    assert report.result is not None
    weights = load(storage.read(parse_s3(report.result.uri).join("model.safetensors")))
    assert {weight.dtype for weight in weights.values()} == {torch.bfloat16}
    config = json.loads(storage.read(parse_s3(report.result.uri).join("config.json")))
    assert config["dtype"] == "bfloat16"


def test_the_best_checkpoint_is_kept_and_becomes_the_result(workplace: Workplace, tmp_path: Path) -> None:
    """With a rate that ruins the model after a good start, the last step is not the best one."""
    run = workplace.train_run(
        "best",
        {"schedule": "Constant", "learning_rate": 0.05, "checkpoint_every_steps": 4},
        checkpoints=Checkpoints(keep=1, best=Best(metric="EvalLoss")),
    )
    report = train_here(run, tmp_path)
    losses = {int(row["step"]): float(row["valid_loss"]) for row in workplace.results("best") if row["valid_loss"]}
    best = min(losses, key=lambda step: losses[step])
    assert report.result.step == best
    assert report.result.eval_loss == losses[best]
    assert [checkpoint.step for checkpoint in report.checkpoints] == sorted({best, 20})


@pytest.mark.parametrize(
    ("changes", "steps"),
    [
        ({"dataset": {"training": {"limit": Limit(examples=12)}}}, 6),
        ({"dataset": {"validation": ValidationData(split_percent=10)}}, 18),
        ({"hyperparameters": {"epochs": 0.5}}, 5),
        ({"hyperparameters": {"packing": True, "max_length": 128}}, None),
    ],
    ids=["limit", "split", "half an epoch", "packing"],
)
def test_the_steps_follow_from_data_and_hyperparameters(
    workplace: Workplace, tmp_path: Path, request: pytest.FixtureRequest, changes: dict[str, Any], steps: int | None
) -> None:
    output = f"steps/{request.node.callspec.id}".replace(" ", "-")
    dataset = changes.get("dataset", {})
    if "training" in dataset:
        dataset = {"training": TrainingData(uri=workplace.training, **dataset["training"])}
    run = workplace.train_run(
        output,
        {"checkpoint_every_steps": 100} | changes.get("hyperparameters", {}),
        dataset=workplace.dataset(**dataset),
    )
    report = train_here(run, tmp_path)
    if steps is None:  # packed: fewer than the twenty steps of single examples
        assert 2 <= report.result.step < 20
    else:
        assert report.result.step == steps


def test_prompt_and_completion_pairs_are_learned(workplace: Workplace, tmp_path: Path) -> None:
    lines = [{"prompt": f"{number} plus 1 is ", "completion": str(number + 1)} for number in range(20)]
    dataset = workplace.dataset(
        training=TrainingData(uri=workplace.bucket.put_lines("data/pairs.jsonl", lines)), validation=None
    )
    report = train_here(workplace.train_run("pairs", dataset=dataset), tmp_path)
    losses = [float(row["train_loss"]) for row in workplace.results("pairs")]
    assert report.result.step == 10
    assert sum(losses[-3:]) < sum(losses[:3])


def test_warmup_and_schedule_shape_the_learning_rate(workplace: Workplace, tmp_path: Path) -> None:
    run = workplace.train_run("rates", {"schedule": "Linear", "warmup_percent": 25.0, "checkpoint_every_steps": 20})
    report = train_here(run, tmp_path)
    manifest = Manifest.model_validate_json(workplace.bucket.read(f"{report.checkpoints[0].uri}/manifest.json"))
    state = next(file.path for file in manifest.files if file.path.endswith("trainer_state.json"))
    history = json.loads(workplace.bucket.read(f"{report.checkpoints[0].uri}/{state}"))["log_history"]
    rates = [entry["learning_rate"] for entry in history if "learning_rate" in entry]
    peak = rates.index(max(rates))
    assert max(rates) == pytest.approx(1e-2)
    assert peak == 5
    assert all(before < after for before, after in pairwise(rates[: peak + 1]))
    assert all(before > after for before, after in pairwise(rates[peak:]))


REFUSED = {
    "no such module": (
        {"adapter": Adapter(lora=LoRA(target_modules=["nothing"]))},
        Reason.INVALID_SPEC,
        "adapter.lora.targetModules",
    ),
    "nothing to measure": (
        {"checkpoints": Checkpoints(best=Best()), "dataset": {"validation": None}},
        Reason.INVALID_SPEC,
        "no dataset.validation",
    ),
    "no such dataset": (
        {"dataset": {"training": TrainingData(uri="s3://trainer/data/none.jsonl")}},
        Reason.DATASET_NOT_FOUND,
        "Nothing is at s3://trainer/data/none.jsonl",
    ),
}


@pytest.mark.parametrize(("changes", "reason", "message"), REFUSED.values(), ids=REFUSED)
def test_what_can_not_work_is_diagnosed(
    workplace: Workplace, tmp_path: Path, changes: dict[str, Any], reason: Reason, message: str
) -> None:
    settings = dict(changes)
    if "dataset" in settings:
        settings["dataset"] = workplace.dataset(**settings["dataset"])
    with pytest.raises(DiagnosedError, match=message) as refused:
        train_here(workplace.train_run(f"refused/{reason}", **settings), tmp_path)
    assert refused.value.failure.reason is reason
    assert not refused.value.failure.retryable


def test_a_loss_that_is_no_number_ends_the_run_before_a_checkpoint(
    workplace: Workplace, storage: Storage, tmp_path: Path
) -> None:
    settings = {"learning_rate": 1e38, "warmup_percent": 0.0, "checkpoint_every_steps": 2}
    run = workplace.train_run("infinite", settings)
    with pytest.raises(DiagnosedError, match=r"at step 2\. Lower hyperparameters.learningRate") as refused:
        train_here(run, tmp_path / "train")
    assert refused.value.failure.reason is Reason.LOSS_NOT_FINITE
    assert not storage.list_objects(parse_s3(workplace.bucket.uri("infinite/checkpoints")))


@pytest.mark.parametrize("adapter", [Adapter(lora=LoRA(rank=4)), Adapter(type="Full")], ids=["LoRA", "Full"])
def test_weights_that_are_no_numbers_are_the_models_fault_and_not_the_datas(
    workplace: Workplace, base: Path, storage: Storage, tmp_path: Path, adapter: Adapter
) -> None:
    """Of Full the trained weights have become NaN by then: the files tell."""
    broken = shutil.copytree(base, tmp_path / "broken")
    weights = load_file(broken / "model.safetensors")
    weights["model.layers.1.mlp.up_proj.weight"][0, :3] = float("nan")
    save_file(weights, broken / "model.safetensors", metadata={"format": "pt"})
    name = f"broken-{adapter.type}"
    model = ModelSource(uri=workplace.bucket.put_folder(f"models/{name}", broken))
    run = workplace.train_run(name, {"checkpoint_every_steps": 1}, model=model, adapter=adapter)
    words = (
        r"The weight model\.layers\.1\.mlp\.up_proj\.weight in model\.safetensors of .* 3 of its \d+ numbers are NaN"
    )
    with pytest.raises(DiagnosedError, match=words) as refused:
        train_here(run, tmp_path / "train")
    assert refused.value.failure.reason is Reason.MODEL_INVALID
    assert not refused.value.failure.retryable
    assert not storage.list_objects(parse_s3(workplace.bucket.uri(f"{name}/checkpoints")))


def test_so_are_those_of_the_adapter_that_came_with_it(
    workplace: Workplace, lora: Any, storage: Storage, tmp_path: Path
) -> None:
    local = fetch_model(ModelSource(uri=workplace.model, adapter_uri=lora.result.uri), storage, tmp_path / "lora")
    assert local.adapter is not None
    file = local.adapter / "adapter_model.safetensors"
    weights = load_file(file)
    broken = next(name for name in sorted(weights) if "lora_B" in name)
    weights[broken][0, 0] = float("-inf")
    save_file(weights, file, metadata={"format": "pt"})
    model = ModelSource(uri=workplace.model, adapter_uri=workplace.bucket.put_folder("adapters/broken", local.adapter))
    with pytest.raises(
        DiagnosedError, match=rf"The weight {re.escape(broken)} in adapter_model.safetensors"
    ) as refused:
        train_here(workplace.train_run("broken-adapter", model=model), tmp_path / "train")
    assert refused.value.failure.reason is Reason.MODEL_INVALID
