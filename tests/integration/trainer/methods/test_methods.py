"""What a spec may ask of the training itself: each does what it says, measured on the losses and on the weights."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load

from finetune_api.conditions import Reason
from finetune_api.finetunejob import (
    DPO,
    SFT,
    Adapter,
    Best,
    Checkpoints,
    EarlyStopping,
    Freeze,
    Full,
    LoRA,
    Method,
    QLoRA,
    Result,
    TrainingData,
)
from finetune_api.pod_contracts.run import ModelSource, TrainRun
from finetune_api.sources import parse_s3
from finetune_trainer.distributed import batches
from finetune_trainer.model import adapters, micro_batches
from finetune_trainer.model.kernels import packed_attention
from finetune_trainer.model.loading import LocalModel, fetch_model, load_model, load_tokenizer
from finetune_trainer.process.failures import DiagnosedError
from finetune_trainer.storage.storage import Storage
from finetune_trainer.train import build_trainer, train
from tests.integration.trainer.runs import Workplace, preference, question, train_here

NO_DROPOUT = Adapter(lora=LoRA(rank=4, alpha=8, dropout=0.0))
ONE_STEP = {"epochs": 1.0, "batch_size": 40, "learning_rate": 1e-9}
"""All forty examples in one step, so that the loss is that of the model as it came."""


def first_loss(workplace: Workplace, directory: Path, output: str, **changes: Any) -> float:
    hyperparameters = ONE_STEP | changes.pop("hyperparameters", {})
    settings: dict[str, Any] = {"adapter": NO_DROPOUT, "dataset": workplace.dataset(validation=None), **changes}
    train_here(workplace.train_run(output, hyperparameters, **settings), directory / output.replace("/", "-"))
    (row,) = workplace.results(output)
    return float(row["train_loss"])


def loaded(storage: Storage, result: Result, base: str, directory: Path) -> tuple[LocalModel, Any]:
    """A result as others load it."""
    whole = result.adapter_type == "Full"
    source = ModelSource(
        uri=result.uri if whole else base, adapter_uri=None if whole else result.uri, digest=result.digest
    )
    local = fetch_model(source, storage, directory)
    return local, load_model(local, torch.float32)


# Supervised fine-tuning.


def test_the_loss_is_the_mean_over_the_tokens_by_their_weights(
    workplace: Workplace, base: Path, tmp_path: Path
) -> None:
    tokenizer = load_tokenizer(base)
    answers = prompts = 0
    for number in range(40):
        asked, answered = (message["content"] for message in question(number)["messages"])
        answers += len(tokenizer(f"{answered}<|im_end|>")["input_ids"])
        # But for the first token, which nothing predicts.
        prompts += len(tokenizer(f"user\n{asked}<|im_end|>\n<|im_start|>assistant\n")["input_ids"])

    def loss(weight: float, **hyperparameters: Any) -> float:
        output = f"weights/{weight}-{len(hyperparameters)}"
        method = Method(sft=SFT(prompt_loss_weight=weight))
        return first_loss(workplace, tmp_path, output, method=method, hyperparameters=hyperparameters)

    alone, all_alike = loss(0.0), loss(1.0)
    of_answers = alone * answers
    of_prompts = all_alike * (answers + prompts) - of_answers
    expected = (of_answers + 0.25 * of_prompts) / (answers + 0.25 * prompts)
    assert loss(0.25) == pytest.approx(expected, rel=1e-5)
    assert abs(alone - all_alike) > 0.05
    assert loss(0.25, packing=True) == pytest.approx(expected, rel=1e-5)


def test_packed_examples_do_not_see_each_other(workplace: Workplace, tmp_path: Path) -> None:
    """Attention stays within an example, positions begin anew, and labels stay with their tokens."""
    apart = first_loss(workplace, tmp_path, "packing/no")
    packed = first_loss(workplace, tmp_path, "packing/yes", hyperparameters={"packing": True})
    assert packed == pytest.approx(apart, rel=1e-5)


def test_packed_rows_have_the_losses_of_a_mask_however_many_are_in_a_pass(
    workplace: Workplace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of training and of validation; and the model generates afterwards, with its own attention again."""

    def losses(way: str) -> list[float]:
        packed = {"packing": True, "max_length": 128, "epochs": 4.0, "learning_rate": 1e-2, "checkpoint_every_steps": 3}
        report = train_here(workplace.train_run(f"packed/{way}", packed, adapter=NO_DROPOUT), tmp_path / way)
        assert report.result is not None and report.result.report_uri is not None
        assert b"generated greedily" in workplace.bucket.read(report.result.report_uri)
        rows = workplace.results(f"packed/{way}")
        return [float(row[column]) for row in rows for column in ("train_loss", "valid_loss") if row[column]]

    together = losses("together")
    monkeypatch.setattr(batches, "MOST_TOKENS", 128)
    assert losses("one-by-one") == pytest.approx(together, rel=1e-5)
    for module in (packed_attention, micro_batches):
        monkeypatch.setattr(module, "computes_packed", lambda _: False)
    assert losses("masked") == pytest.approx(together, rel=1e-5)


def test_what_learned_in_bfloat16_speaks_when_its_training_is_over(
    workplace: Workplace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Adapters in float32 upon a base in bfloat16, which autocast brings together while they are trained."""
    expected = first_loss(workplace, tmp_path, "half/float32")
    for module in (build_trainer, train, adapters):
        monkeypatch.setattr(module, "uses_bfloat16", lambda: True)
    report = train_here(workplace.train_run("half/bfloat16", ONE_STEP, adapter=NO_DROPOUT), tmp_path / "half")
    assert report.result is not None and report.result.report_uri is not None
    assert b"generated greedily" in workplace.bucket.read(report.result.report_uri)
    assert float(workplace.results("half/bfloat16")[0]["train_loss"]) == pytest.approx(expected, rel=0.01)


def test_the_validation_loss_does_not_depend_on_the_prompts_weight(workplace: Workplace, tmp_path: Path) -> None:
    def validated(weight: float) -> str:
        output = f"validated/{weight}"
        run = workplace.train_run(
            output, {**ONE_STEP, "checkpoint_every_steps": 1}, method=Method(sft=SFT(prompt_loss_weight=weight))
        )
        train_here(run, tmp_path / str(weight))
        return workplace.results(output)[0]["valid_loss"][:6]

    assert validated(0.0) == validated(0.5)


def test_the_same_seed_makes_the_same_adapter_to_the_last_byte(
    workplace: Workplace, storage: Storage, tmp_path: Path
) -> None:
    def adapter(name: str, seed: int) -> bytes:
        run = workplace.train_run(
            f"seeds/{name}", {"seed": seed, "epochs": 1.0}, adapter=Adapter(lora=LoRA(rank=4, alpha=8, dropout=0.2))
        )
        result = train_here(run, tmp_path / name).result
        return storage.read(parse_s3(result.uri).join("adapter_model.safetensors"))

    first = adapter("first", 5)
    assert first == adapter("again", 5)
    assert first != adapter("other", 6)


# Direct preference optimization.


@pytest.fixture(scope="module")
def pairs(workplace: Workplace) -> str:
    return workplace.bucket.put_lines("data/preferences.jsonl", [preference(number) for number in range(40)])


def dpo_run(workplace: Workplace, pairs: str, output: str, **changes: Any) -> TrainRun:
    held_out = workplace.bucket.put_lines("data/held-out.jsonl", [preference(number) for number in range(40, 48)])
    dataset = workplace.dataset(training=TrainingData(uri=pairs), validation={"uri": held_out})
    settings: dict[str, Any] = {"method": Method(type="DPO"), "adapter": NO_DROPOUT, "dataset": dataset, **changes}
    return workplace.train_run(output, {"learning_rate": 5e-3, "beta": 0.1}, **settings)


def test_preferences_are_learned_and_their_margins_are_reported(
    workplace: Workplace, pairs: str, tmp_path: Path
) -> None:
    report = train_here(dpo_run(workplace, pairs, "preferences"), tmp_path)
    rows = workplace.results("preferences")
    assert float(rows[0]["train_loss"]) == pytest.approx(math.log(2))  # the model is its own reference
    assert float(rows[-1]["train_loss"]) < 0.5
    assert float(rows[-1]["train_reward_accuracy"]) > 0.7
    assert float(rows[-1]["train_reward_margin"]) > 0.5
    assert float(rows[-1]["valid_reward_margin"]) > 0
    assert (report.result.adapter_type, report.result.step) == ("LoRA", 20)


@pytest.mark.parametrize(("loss_type", "first"), [("Sigmoid", math.log(2)), ("Hinge", 1.0), ("IPO", 25.0)])
def test_every_loss_begins_where_its_formula_says(
    workplace: Workplace, pairs: str, tmp_path: Path, loss_type: Any, first: float
) -> None:
    """At equal rewards: log 2; max(0, 1 - 0); (0 - 1 / 2 beta) squared."""
    loss = first_loss(
        workplace,
        tmp_path,
        f"losses/{loss_type}",
        method=Method(type="DPO", dpo=DPO(loss_type=loss_type)),
        dataset=workplace.dataset(training=TrainingData(uri=pairs), validation=None),
        hyperparameters={"beta": 0.1},
    )
    assert loss == pytest.approx(first, rel=1e-4)


# From another job's result.


@pytest.fixture(scope="module")
def tuned(workplace: Workplace, tmp_path_factory: pytest.TempPathFactory) -> Result:
    run = workplace.train_run("tuned", {"epochs": 1.0}, dataset=workplace.dataset(validation=None))
    return train_here(run, tmp_path_factory.mktemp("tuned")).result


def source_of(workplace: Workplace, tuned: Result) -> ModelSource:
    return ModelSource(uri=workplace.model, adapter_uri=tuned.uri, digest=tuned.digest)


def test_an_adapter_is_trained_on(workplace: Workplace, storage: Storage, tuned: Result, tmp_path: Path) -> None:
    """With its own rank, whatever the spec says of new ones; it begins at the loss that the first job ended with."""
    settings: dict[str, Any] = {
        "model": source_of(workplace, tuned),
        "adapter": Adapter(lora=LoRA(rank=2, inherited="Continue")),
    }
    at_first = first_loss(workplace, tmp_path, "continued/first", **settings | {"adapter": NO_DROPOUT})
    assert at_first < 0.8 * first_loss(workplace, tmp_path, "continued/base")
    run = workplace.train_run("continued/run", {"epochs": 1.0}, **settings)
    result = train_here(run, tmp_path / "run").result
    assert (result.adapter_type, result.base_model_uri) == ("LoRA", workplace.model)
    local, _ = loaded(storage, result, workplace.model, tmp_path / "loaded")
    assert local.adapter is not None
    assert json.loads((local.adapter / "adapter_config.json").read_bytes())["r"] == 4
    before = load(storage.read(parse_s3(tuned.uri).join("adapter_model.safetensors")))
    after = load((local.adapter / "adapter_model.safetensors").read_bytes())
    assert before.keys() == after.keys()
    assert all(not torch.equal(before[name], after[name]) for name in before)


def test_an_adapter_is_merged_and_a_new_one_trained(
    workplace: Workplace, storage: Storage, tuned: Result, tmp_path: Path
) -> None:
    settings: dict[str, Any] = {
        "model": source_of(workplace, tuned),
        "adapter": Adapter(lora=LoRA(rank=2, inherited="Merge")),
    }
    run = workplace.train_run("merged", {"epochs": 1.0}, **settings)
    result = train_here(run, tmp_path / "run").result
    assert result.adapter_type == "Full"
    local, model = loaded(storage, result, workplace.model, tmp_path / "loaded")
    base = load_model(fetch_model(ModelSource(uri=workplace.model), storage, tmp_path / "base"), torch.float32)
    assert local.adapter is None
    weights, before = model.state_dict(), base.state_dict()
    assert weights.keys() == before.keys()
    assert not torch.equal(weights["model.layers.0.mlp.up_proj.weight"], before["model.layers.0.mlp.up_proj.weight"])
    assert torch.equal(weights["model.embed_tokens.weight"], before["model.embed_tokens.weight"])


@pytest.mark.parametrize("inherited", ["Continue", "Merge"])
def test_preferences_are_compared_with_the_model_that_the_run_starts_from(
    workplace: Workplace, tuned: Result, pairs: str, tmp_path: Path, inherited: Any, storage: Storage
) -> None:
    """Were it the base model without the adapter, the first loss would not be that of equals."""
    adapter = Adapter(lora=LoRA(rank=4, dropout=0.0, inherited=inherited))
    run = dpo_run(workplace, pairs, f"dpo-{inherited}", model=source_of(workplace, tuned), adapter=adapter)
    result = train_here(run, tmp_path).result
    assert float(workplace.results(f"dpo-{inherited}")[0]["train_loss"]) == pytest.approx(math.log(2))
    files = {item.path for item in storage.list_objects(parse_s3(result.uri))}
    assert ("adapter_model.safetensors" in files) == (inherited == "Continue")
    assert not any(path.startswith("ref/") for path in files)


# In four bits.


@pytest.mark.parametrize("method", [Method(), Method(type="DPO")], ids=["SFT", "DPO"])
def test_an_adapter_is_trained_upon_a_model_in_four_bits(
    workplace: Workplace, storage: Storage, pairs: str, tmp_path: Path, method: Method
) -> None:
    """bitsandbytes computes on CPUs too, slowly. The adapter is one for the model as it was."""
    pytest.importorskip("bitsandbytes")
    training = pairs if method.type == "DPO" else workplace.training
    run = workplace.train_run(
        f"four-bits/{method.type}",
        {"beta": 0.1, "checkpoint_every_steps": 4},
        method=method,
        adapter=Adapter(type="QLoRA", qlora=QLoRA(rank=4, alpha=8)),
        dataset=workplace.dataset(training=TrainingData(uri=training), validation=None),
    )
    result = train_here(run, tmp_path / "run").result
    losses = [float(row["train_loss"]) for row in workplace.results(f"four-bits/{method.type}")]
    assert sum(losses[-3:]) < 0.8 * sum(losses[:3])
    assert result.adapter_type == "LoRA"
    local, model = loaded(storage, result, workplace.model, tmp_path / "loaded")
    assert local.adapter is not None
    assert any(weight.abs().max() > 0 for name, weight in model.named_parameters() if "lora_B" in name)


@pytest.mark.parametrize("method", [Method(), Method(type="DPO")], ids=["SFT", "DPO"])
def test_an_adapter_upon_four_bits_and_its_moments_are_kept_in_float32(
    workplace: Workplace, pairs: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: Method
) -> None:
    """TRL casts them to bfloat16, in which most steps of a small learning rate change nothing."""
    pytest.importorskip("bitsandbytes")
    found: dict[str, set[torch.dtype]] = {}
    fit = train.fit

    def watched(built: build_trainer.BuiltTrainer, start: Any) -> None:
        fit(built, start)
        weights = [weight for weight in built.trainer.model.parameters() if weight.requires_grad]
        found["weights"] = {weight.dtype for weight in weights}
        states = [built.trainer.optimizer.optimizer.state[weight] for weight in weights]
        found["moments"] = {state[name].dtype for state in states for name in ("exp_avg", "exp_avg_sq")}

    monkeypatch.setattr(train, "fit", watched)
    training = pairs if method.type == "DPO" else workplace.training
    run = workplace.train_run(
        f"four-bits/precise-{method.type}",
        ONE_STEP | ({"beta": 0.1} if method.type == "DPO" else {}),
        method=method,
        adapter=Adapter(type="QLoRA", qlora=QLoRA(rank=4, alpha=8)),
        dataset=workplace.dataset(training=TrainingData(uri=training), validation=None),
    )
    train_here(run, tmp_path)
    assert found == {"weights": {torch.float32}, "moments": {torch.float32}}


def test_without_the_package_for_four_bits_the_run_says_what_to_do(
    workplace: Workplace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(DiagnosedError, match="needs the package bitsandbytes") as refused:
        train_here(workplace.train_run("four-bits/missing", adapter=Adapter(type="QLoRA")), tmp_path)
    assert refused.value.failure.reason is Reason.INVALID_SPEC


# Frozen weights.


@pytest.mark.parametrize("method", [Method(), Method(type="DPO")], ids=["SFT", "DPO"])
def test_frozen_weights_stay_as_they_are(
    workplace: Workplace, storage: Storage, pairs: str, tmp_path: Path, method: Method
) -> None:
    training = pairs if method.type == "DPO" else workplace.training
    run = workplace.train_run(
        f"frozen/{method.type}",
        {"epochs": 1.0, "learning_rate": 1e-3, "beta": 0.1},
        method=method,
        adapter=Adapter(type="Full", full=Full(freeze=Freeze(layers=1, embeddings=True))),
        dataset=workplace.dataset(training=TrainingData(uri=training), validation=None),
    )
    result = train_here(run, tmp_path / "run").result
    _, model = loaded(storage, result, workplace.model, tmp_path / "loaded")
    base = load_model(fetch_model(run.model, storage, tmp_path / "base"), torch.float32).state_dict()
    frozen = {name for name, weight in model.state_dict().items() if torch.equal(weight, base[name])}
    first_layer = {name for name in base if name.startswith("model.layers.0.")}
    assert frozen == {"model.embed_tokens.weight", *first_layer}


def test_more_layers_than_there_are_can_not_be_frozen(workplace: Workplace, tmp_path: Path) -> None:
    run = workplace.train_run("frozen/too-many", adapter=Adapter(type="Full", full=Full(freeze=Freeze(layers=3))))
    with pytest.raises(DiagnosedError, match=r"freeze\.layers is 3, and the model has 2 layers") as refused:
        train_here(run, tmp_path)
    assert refused.value.failure.reason is Reason.INVALID_SPEC


# Early stopping.


def test_a_run_ends_when_it_gets_no_better_and_its_best_checkpoint_is_the_result(
    workplace: Workplace, storage: Storage, tmp_path: Path
) -> None:
    """With a rate that ruins the model; and an attempt that finds the run at its end only makes the result."""
    run = workplace.train_run(
        "early",
        {
            "epochs": 10.0,
            "schedule": "Constant",
            "learning_rate": 0.05,
            "checkpoint_every_steps": 4,
            "early_stopping": EarlyStopping(patience=3),
        },
        checkpoints=Checkpoints(keep=2, best=Best(metric="EvalLoss")),
    )
    report = train_here(run, tmp_path / "first")
    losses = {int(row["step"]): float(row["valid_loss"]) for row in workplace.results("early") if row["valid_loss"]}
    last, best = max(losses), min(losses, key=lambda step: losses[step])
    assert (report.result.step, last) == (best, best + 12)
    assert last < 100
    assert report.checkpoints[-1].step == last

    folder = parse_s3(report.result.uri)
    storage.delete([folder.join(item.path) for item in storage.list_objects(folder)])
    again = train_here(run.model_copy(update={"attempt": 2}), tmp_path / "again")
    assert again.result.step == best
    assert max(int(row["step"]) for row in workplace.results("early")) == last
