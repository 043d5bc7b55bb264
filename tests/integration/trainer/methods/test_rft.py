"""Reinforcement fine-tuning, from the prompts to the published result: it learns, and it resumes bit for bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from finetune_api.conditions import Reason
from finetune_api.default_hyperparameters import resolve_hyperparameters
from finetune_api.finetunejob import (
    Adapter,
    Best,
    Checkpoints,
    Dataset,
    Hyperparameters,
    LoRA,
    QLoRA,
    TrainingData,
    ValidationData,
)
from finetune_api.sources import parse_s3
from finetune_trainer.checkpoint import checkpoints
from finetune_trainer.checkpoint.saving import CheckpointWriter
from finetune_trainer.preflight.preflight import preflight
from finetune_trainer.process.failures import DiagnosedError, DisruptedError
from finetune_trainer.storage.storage import Storage
from tests.integration.trainer.methods.rft_runs import (
    FULL,
    digits,
    generating_in_halves,
    measured_rows,
    method,
    prompt,
    validations,
    weights,
)
from tests.integration.trainer.runs import Workplace, train_here

LORA = Adapter(lora=LoRA(rank=4, dropout=0.1))


@pytest.fixture(scope="module")
def dataset(workplace: Workplace) -> Dataset:
    return digits(workplace)


def test_the_reward_on_held_out_prompts_rises(workplace: Workplace, dataset: Dataset, tmp_path: Path) -> None:
    asked = workplace.preflight_run("rft", dataset=dataset, method=method())
    found = preflight(asked, tmp_path / "preflight")
    assert found.dataset.format == "Reinforcement"
    assert found.dataset.training is not None
    assert found.dataset.training.examples == 20

    hyperparameters = {"epochs": 32.0, "batch_size": 8, "learning_rate": 1e-3, "total_steps": 96}
    run = workplace.train_run(
        "rft",
        {**hyperparameters, "schedule": "Constant", "checkpoint_every_steps": 12},
        method=method(completionsPerPrompt=8, evaluation={"completionsPerPrompt": 4}),
        adapter=FULL,
        dataset=dataset,
    )
    trained = train_here(run, tmp_path / "train")
    assert trained.result.step == 96
    rewards = validations(workplace, "rft")
    assert len(rewards) == 8
    assert rewards[-1] >= 2 * rewards[0]

    first, *_, last = workplace.results("rft")
    for name in ("reward_mean", "close_reward_mean", "exact_reward_mean", "completion_tokens_mean"):
        assert float(first[f"train_{name}"]) >= 0
        assert float(last[f"valid_{name}"]) >= 0
    assert not any(row["valid_loss"] for row in workplace.results("rft"))
    events = workplace.bucket.read(workplace.bucket.uri("rft/events.jsonl")).decode()
    assert "full validation mean reward=" in events
    page = workplace.bucket.read(f"{trained.result.uri}/report.html").decode()
    assert "Validation mean reward: from" in page


@pytest.mark.parametrize(
    ("adapter", "step", "changes"),
    [(LORA, 5, {}), (FULL, 7, {}), (FULL, 6, {"lossType": "RLOO", "klCoefficient": 0.05})],
    ids=["LoRA, between epochs", "Full, within an epoch", "RLOO, beside a reference"],
)
def test_a_run_stopped_while_it_generates_ends_with_the_weights_of_an_undisturbed_one(
    workplace: Workplace,
    storage: Storage,
    dataset: Dataset,
    tmp_path: Path,
    adapter: Adapter,
    step: int,
    changes: dict[str, Any],
) -> None:
    """The step that was under way is given up; the one before is saved as it was when it ended."""
    hyperparameters = {"epochs": 2.0, "batch_size": 4, "learning_rate": 1e-3, "checkpoint_every_steps": 4}
    settings: dict[str, Any] = {"method": method(**changes), "adapter": adapter, "dataset": dataset}
    name = f"{adapter.type}-{step}"
    smooth = workplace.train_run(f"rft-smooth/{name}", {**hyperparameters, "total_steps": 10}, **settings)
    stopped = smooth.model_copy(update={"output_uri": workplace.bucket.uri(f"rft-stopped/{name}")})
    with generating_in_halves():
        undisturbed = train_here(smooth, tmp_path / "smooth")
    with generating_in_halves(stopped_after=step), pytest.raises(DisruptedError, match=f"after step {step}"):
        train_here(stopped, tmp_path / "first")
    assert checkpoints.list_committed(storage, parse_s3(stopped.output_uri))[-1].manifest.step == step

    with generating_in_halves():
        resumed = train_here(stopped.model_copy(update={"attempt": 2}), tmp_path / "second")
    assert resumed.result.step == undisturbed.result.step
    assert weights(workplace, resumed) == weights(workplace, undisturbed)
    assert workplace.results(f"rft-stopped/{name}") == workplace.results(f"rft-smooth/{name}")
    assert resumed.result.trained_tokens == undisturbed.result.trained_tokens


def test_an_adapter_is_trained_upon_a_model_in_four_bits(
    workplace: Workplace, dataset: Dataset, tmp_path: Path
) -> None:
    """bitsandbytes computes on CPUs too, slowly."""
    pytest.importorskip("bitsandbytes")
    run = workplace.train_run(
        "rft-four-bits",
        {"epochs": 1.0, "batch_size": 4, "total_steps": 5, "checkpoint_every_steps": 5},
        method=method(),
        adapter=Adapter(type="QLoRA", qlora=QLoRA(rank=4, alpha=8)),
        dataset=dataset,
    )
    trained = train_here(run, tmp_path / "run")
    assert trained.result.adapter_type == "LoRA"
    assert len(validations(workplace, "rft-four-bits")) == 1


def test_steps_are_those_that_preflight_plans(workplace: Workplace, dataset: Dataset, tmp_path: Path) -> None:
    """The last batch of an epoch is incomplete, and is filled up."""
    asked = workplace.preflight_run("rft-steps", dataset=dataset, method=method())
    report = preflight(asked, tmp_path / "preflight")
    planned = resolve_hyperparameters(
        Hyperparameters(epochs=2, batch_size=6),
        method=asked.method,
        adapter="LoRA",
        checkpoints=Checkpoints(),
        examples=20,
        max_tokens=report.dataset.training.max_tokens if report.dataset.training else 0,
        context_length=report.model.context_length,
    )
    assert planned.total_steps == 8
    run = workplace.train_run("rft-steps", dataset=dataset, method=asked.method)
    trained = train_here(run.model_copy(update={"hyperparameters": planned}), tmp_path / "train")
    rows = workplace.results("rft-steps")
    assert [int(row["step"]) for row in rows] == list(range(1, 9))
    assert trained.result.trained_tokens


def test_the_best_checkpoints_by_reward_are_kept_and_the_best_is_the_result(
    workplace: Workplace, storage: Storage, dataset: Dataset, tmp_path: Path
) -> None:
    run = workplace.train_run(
        "rft-best",
        {"epochs": 2.0, "batch_size": 4, "learning_rate": 3e-3, "total_steps": 10, "checkpoint_every_steps": 2},
        method=method(),
        adapter=FULL,
        dataset=dataset,
        checkpoints=Checkpoints(keep=2, best=Best(metric="ValidReward", goal="Maximize")),
    )
    trained = train_here(run, tmp_path / "train")
    rewards = {int(row["step"]): float(row["valid_reward_mean"]) for row in measured_rows(workplace, "rft-best")}
    assert list(rewards) == [2, 4, 6, 8, 10]
    best = sorted(rewards, key=lambda step: (-rewards[step], step))
    kept = [one.manifest.step for one in checkpoints.list_committed(storage, parse_s3(run.output_uri))]
    assert kept == sorted({*best[:2], 10})
    assert trained.result.step == best[0]
    assert trained.result.valid_reward == pytest.approx(rewards[best[0]])


def test_completions_of_an_evaluation_survive_a_power_cut_right_after_it(
    workplace: Workplace, dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next attempt does not make that evaluation again."""
    hyperparameters = {"epochs": 1.0, "batch_size": 4, "total_steps": 4, "checkpoint_every_steps": 2}
    run = workplace.train_run("rft-cut", hyperparameters, method=method(), adapter=FULL, dataset=dataset)
    note = CheckpointWriter.note_evaluation

    def cut(writer: CheckpointWriter, entry: Any) -> None:
        note(writer, entry)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(CheckpointWriter, "note_evaluation", cut)
        train_here(run, tmp_path / "first")
    trained = train_here(run.model_copy(update={"attempt": 2}), tmp_path / "second")
    page = workplace.bucket.read(f"{trained.result.uri}/report.html").decode()
    assert "<dt>Step 2</dt>" in page and "<dt>Step 4</dt>" in page
    assert trained.result.train_reward is not None


def test_a_prompt_without_a_field_that_a_grader_reads_is_named(workplace: Workplace, tmp_path: Path) -> None:
    lines: list[dict[str, Any]] = [prompt(number) for number in range(20)]
    del lines[16]["answer"]
    dataset = Dataset(
        training=TrainingData(uri=workplace.bucket.put_lines("data/lacking.jsonl", lines)),
        validation=ValidationData(split_percent=10),
    )
    with pytest.raises(DiagnosedError) as caught:
        preflight(workplace.preflight_run("rft-lacking", dataset=dataset, method=method()), tmp_path / "preflight")
    failure = caught.value.failure
    assert failure.reason == Reason.DATASET_INVALID
    assert failure.dataset is not None
    (error,) = failure.dataset.errors
    assert error.line == 17
    assert error.message == "Grader 'close' reads {{item.answer}}, which this example does not have."


def test_a_prompt_without_room_for_a_completion_is_named(workplace: Workplace, tmp_path: Path) -> None:
    lines = [{**prompt(number), "messages": [{"role": "user", "content": "x" * number}]} for number in range(60, 80)]
    dataset = Dataset(
        training=TrainingData(uri=workplace.bucket.put_lines("data/long-prompts.jsonl", lines)),
        validation=ValidationData(split_percent=10),
    )
    asked = workplace.preflight_run("rft-long", dataset=dataset, method=method(maxCompletionTokens=40))
    with pytest.raises(DiagnosedError, match="a completion may have 40 \\(maxCompletionTokens\\)"):
        preflight(asked, tmp_path / "preflight")


def test_a_run_whose_completions_cant_be_graded_fails_with_the_first_errors(
    workplace: Workplace, dataset: Dataset, tmp_path: Path
) -> None:
    run = workplace.train_run("rft-errors", method=method(reward="1 / exact"), adapter=FULL, dataset=dataset)
    with pytest.raises(DiagnosedError) as caught:
        train_here(run, tmp_path / "train")
    assert caught.value.failure.reason == Reason.GRADER_FAILED
    assert "could not be graded, 100 % (method.rft.graderErrors.maximumPercent is 20)" in str(caught.value)
    assert "calculateOutput with exact=0" in str(caught.value)


@pytest.mark.parametrize("ungraded", [1, 4])
def test_an_evaluation_is_judged_once_over_all_its_prompts(workplace: Workplace, tmp_path: Path, ungraded: int) -> None:
    """Each batch has one prompt: of one that can't be graded it has nothing but errors."""

    def put(name: str, kinds: list[str]) -> str:
        lines = [{**prompt(number), "kind": kind} for number, kind in enumerate(kinds)]
        return workplace.bucket.put_lines(f"data/{name}-{ungraded}.jsonl", lines)

    graders = method().settings.to_wire()["graders"]
    kinds = {"input": "{{sample.output_text}}{{item.kind}}", "reference": "{{sample.output_text}}known"}
    known = {"name": "known", "type": "StringCheck", "stringCheck": kinds}
    run = workplace.train_run(
        f"rft-judged-{ungraded}",
        {"batch_size": 1, "epochs": 0.1, "total_steps": 2, "checkpoint_every_steps": 2},
        method=method(graders=[*graders, known], reward="close / known", evaluation={"completionsPerPrompt": 4}),
        adapter=FULL,
        dataset=Dataset(
            training=TrainingData(uri=put("known", ["known"] * 20)),
            validation=ValidationData(uri=put("mixed", ["known"] * (10 - ungraded) + ["unknown"] * ungraded)),
        ),
    )
    if ungraded == 1:
        train_here(run, tmp_path / "train")
        (row,) = measured_rows(workplace, f"rft-judged-{ungraded}")
        assert float(row["valid_unresponsive_rewards_mean"]) == 0.1
        return
    with pytest.raises(DiagnosedError, match=r"16 of 40 completions could not be graded, 40 %"):
        train_here(run, tmp_path / "train")


def test_a_run_whose_rewards_are_all_alike_ends_before_it_has_used_much(
    workplace: Workplace, dataset: Dataset, tmp_path: Path
) -> None:
    """The model never writes eight digits: no answer of the first 64 prompts is better than another."""
    run = workplace.train_run(
        "rft-no-signal",
        {"batch_size": 16, "epochs": 4.0, "total_steps": 8},
        method=method(reward="exact"),
        adapter=FULL,
        dataset=dataset,
    )
    with pytest.raises(DiagnosedError) as caught:
        train_here(run, tmp_path / "train")
    failure = caught.value.failure
    assert failure.reason == Reason.REWARD_HAS_NO_SIGNAL
    assert not failure.retryable
    assert "For 64 of the first 64 prompts, all 4 answers of the model have the same reward (mean reward: 0.000)" in (
        failure.message
    )
