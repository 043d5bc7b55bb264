"""Distillation, from the prompts to the published result: the model learns what its teacher knows, and resumes bit for
bit."""

from __future__ import annotations

import hashlib
import math
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from finetune_api.conditions import Reason
from finetune_api.finetunejob import (
    Adapter,
    Best,
    Checkpoints,
    Dataset,
    Distillation,
    LoRA,
    Method,
    TrainingData,
    ValidationData,
)
from finetune_api.pod_contracts.outcome import TrainReport
from finetune_api.pod_contracts.run import ModelSource
from finetune_api.sources import parse_s3
from finetune_trainer.checkpoint import checkpoints
from finetune_trainer.methods.distillation.trainer import fit_vocabulary
from finetune_trainer.methods.on_policy import OnPolicy
from finetune_trainer.model.loading import fetch_model
from finetune_trainer.preflight.preflight import preflight
from finetune_trainer.process.failures import DiagnosedError, DisruptedError
from finetune_trainer.storage.open_storage import open_storage
from finetune_trainer.storage.storage import Storage
from tests.integration.trainer.runs import Workplace, train_here
from tests.integration.trainer_evaluation.tiny_models import (
    PlainGeneration,
    chat,
    make_tokenizer,
    save_adapter,
)

FULL = Adapter(type="Full")
ANSWER_TOKENS = 2
LETTERS = "abcdefghij"


def answer(number: int) -> str:
    return LETTERS[number % 10]


def prompt(number: int) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": f"Letter {number % 10}"}]}


def method(teacher: str, **changes: Any) -> Method:
    settings = {"teacher": {"uri": teacher}, "maxCompletionTokens": ANSWER_TOKENS}
    return Method(type="Distillation", distillation=Distillation.from_wire(settings | changes))


@pytest.fixture(scope="module")
def dataset(workplace: Workplace) -> Dataset:
    """Prompts without answers."""

    def put(name: str, count: int) -> str:
        return workplace.bucket.put_lines(f"data/{name}.jsonl", [prompt(number) for number in range(count)])

    return Dataset(
        training=TrainingData(uri=put("asked", 40)),
        validation=ValidationData(uri=put("asked-later", 10)),
    )


@pytest.fixture(scope="module")
def teacher(workplace: Workplace, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A model that was shown the answers."""
    lines = [chat(f"Letter {number % 10}", answer(number)) for number in range(40)]
    run = workplace.train_run(
        "teacher",
        {"epochs": 16.0, "batch_size": 8, "learning_rate": 3e-3, "total_steps": 80, "checkpoint_every_steps": 80},
        adapter=FULL,
        dataset=Dataset(training=TrainingData(uri=workplace.bucket.put_lines("data/answers.jsonl", lines))),
    )
    return train_here(run, tmp_path_factory.mktemp("teacher")).result.uri


def exact_matches(uri: str, storage: Storage, folder: Path) -> float:
    """The share of prompts that a model answers right."""
    found = fetch_model(ModelSource(uri=uri), storage, folder).base
    plain = PlainGeneration(LlamaForCausalLM.from_pretrained(found), AutoTokenizer.from_pretrained(found))
    answers = [plain.answer(f"Letter {number}", ANSWER_TOKENS) for number in range(10)]
    return sum(found == answer(number) for number, found in enumerate(answers)) / 10


def weights(workplace: Workplace, report: TrainReport) -> str:
    """The digest of the result's weights."""
    name = "adapter_model.safetensors" if report.result.adapter_type == "LoRA" else "model.safetensors"
    return hashlib.sha256(workplace.bucket.read(f"{report.result.uri}/{name}")).hexdigest()


def fetched(workplace: Workplace, folder: Path) -> Path:
    return fetch_model(ModelSource(uri=workplace.model), open_storage(workplace.bucket.storage), folder).base


def saved_model(workplace: Workplace, name: str, folder: Path, tokenizer: Any, **changes: Any) -> str:
    LlamaForCausalLM(_config(len(tokenizer), **changes)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return workplace.bucket.put_folder(f"models/{name}", folder)


def saved_adapter(workplace: Workplace, folder: Path) -> str:
    return workplace.bucket.put_folder(
        "models/an-adapter", save_adapter(folder / "adapter", fetched(workplace, folder), 3)
    )


def _config(rows: int, **changes: Any) -> LlamaConfig:
    settings = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    return LlamaConfig(vocab_size=rows, bos_token_id=None, eos_token_id=0, **settings | changes)


@pytest.mark.parametrize("divergence", ["ReverseKL", "ForwardKL"])
def test_a_model_learns_what_its_teacher_knows_from_prompts_without_answers(
    workplace: Workplace, storage: Storage, dataset: Dataset, teacher: str, tmp_path: Path, divergence: str
) -> None:
    assert exact_matches(teacher, storage, tmp_path / "teacher") == 1
    assert exact_matches(workplace.model, storage, tmp_path / "before") == 0
    spec, source, output = method(teacher, divergence=divergence), ModelSource(uri=teacher), f"distilled-{divergence}"
    asked = workplace.preflight_run(output, dataset=dataset, method=spec, teacher=source)
    assert preflight(asked, tmp_path / "preflight").dataset.format == "Reinforcement"

    run = workplace.train_run(
        output,
        {
            "epochs": 80.0,
            "batch_size": 20,
            "learning_rate": 3e-3,
            "schedule": "Constant",
            "total_steps": 160,
            "checkpoint_every_steps": 80,
        },
        method=spec,
        teacher=source,
        adapter=FULL,
        dataset=dataset,
        checkpoints=Checkpoints(keep=1, best=Best(metric="EvalLoss", goal="Minimize")),
    )
    trained = train_here(run, tmp_path / "train")
    assert exact_matches(trained.result.uri, storage, tmp_path / "after") >= 0.8

    rows = workplace.results(output)
    measured = [row for row in rows if row["valid_loss"]]
    assert [int(row["step"]) for row in measured] == [80, 160]
    assert float(measured[-1]["valid_loss"]) < float(rows[0]["train_loss"]) / 4
    assert trained.result.eval_loss == pytest.approx(float(measured[-1]["valid_loss"]), rel=1e-3)
    assert 1 <= float(rows[-1]["train_completion_tokens_mean"]) <= ANSWER_TOKENS
    assert f"| uri | {teacher} |" in workplace.bucket.read(f"{trained.result.uri}/README.md").decode()


def test_the_divergence_of_jensen_and_shannon_is_at_most_the_logarithm_of_two(
    workplace: Workplace, dataset: Dataset, teacher: str, tmp_path: Path
) -> None:
    """The two others have no bound: that of a model which knows nothing is above it."""
    losses: dict[str, float] = {}
    for divergence in ("JSD", "ReverseKL", "ForwardKL"):
        output = f"distilled-once-{divergence}"
        run = workplace.train_run(
            output,
            {"epochs": 1.0, "batch_size": 40, "total_steps": 1, "checkpoint_every_steps": 1},
            method=method(teacher, divergence=divergence),
            teacher=ModelSource(uri=teacher),
            dataset=Dataset(training=dataset.training),
        )
        train_here(run, tmp_path / divergence)
        losses[divergence] = float(workplace.results(output)[0]["train_loss"])
    assert 0 < losses["JSD"] <= math.log(2) < min(losses["ReverseKL"], losses["ForwardKL"])


@contextmanager
def generating_in_halves(*, stopped_after: int | None = None) -> Iterator[None]:
    """Every generation has two parts; between those that follow the step `stopped_after`, a SIGTERM comes."""

    def halves(trainer: Any, prompt_ids: list[list[int]]) -> Iterator[list[list[int]]]:
        middle = len(prompt_ids) // 2
        yield prompt_ids[:middle]
        if trainer.model.training and trainer.state.global_step == stopped_after:
            os.kill(os.getpid(), signal.SIGTERM)
        yield prompt_ids[middle:]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(OnPolicy, "_parts", halves)
        yield


@pytest.mark.parametrize(
    ("adapter", "step"),
    [(Adapter(lora=LoRA(rank=4, dropout=0.1)), 7), (FULL, 3)],
    ids=["LoRA, in the second epoch", "Full, in the first"],
)
def test_a_run_stopped_while_it_generates_ends_with_the_weights_of_an_undisturbed_one(
    workplace: Workplace, storage: Storage, dataset: Dataset, teacher: str, tmp_path: Path, adapter: Adapter, step: int
) -> None:
    """The step that was under way is given up; the one before is saved as it was when it ended."""
    name = f"{adapter.type}-{step}"
    smooth = workplace.train_run(
        f"distilled-smooth/{name}",
        {"epochs": 2.0, "batch_size": 8, "learning_rate": 1e-3, "total_steps": 10, "checkpoint_every_steps": 4},
        method=method(teacher, temperature=0.9),
        teacher=ModelSource(uri=teacher),
        adapter=adapter,
        dataset=dataset,
    )
    stopped = smooth.model_copy(update={"output_uri": workplace.bucket.uri(f"distilled-stopped/{name}")})
    with generating_in_halves():
        undisturbed = train_here(smooth, tmp_path / "smooth")
    with generating_in_halves(stopped_after=step), pytest.raises(DisruptedError, match=f"after step {step}"):
        train_here(stopped, tmp_path / "first")
    assert checkpoints.list_committed(storage, parse_s3(stopped.output_uri))[-1].manifest.step == step

    with generating_in_halves():
        resumed = train_here(stopped.model_copy(update={"attempt": 2}), tmp_path / "second")
    assert resumed.result.step == undisturbed.result.step
    assert weights(workplace, resumed) == weights(workplace, undisturbed)
    assert workplace.results(f"distilled-stopped/{name}") == workplace.results(f"distilled-smooth/{name}")
    assert resumed.result.trained_tokens == undisturbed.result.trained_tokens


def test_the_teacher_may_be_an_adapter_on_its_base(workplace: Workplace, dataset: Dataset, tmp_path: Path) -> None:
    """As the result of most jobs is."""
    run = workplace.train_run(
        "distilled-from-adapter",
        {"epochs": 1.0, "batch_size": 8, "total_steps": 5, "checkpoint_every_steps": 5},
        method=method(workplace.model),
        teacher=ModelSource(uri=workplace.model, adapter_uri=saved_adapter(workplace, tmp_path)),
        dataset=dataset,
    )
    assert train_here(run, tmp_path / "train").result.step == 5
    # At its first step the model is its teacher's base: what there is to learn is what the adapter changes.
    assert float(workplace.results("distilled-from-adapter")[0]["train_loss"]) > 0.1


def test_a_teacher_with_another_tokenizer_is_refused_with_the_first_token_that_differs(
    workplace: Workplace, dataset: Dataset, tmp_path: Path
) -> None:
    other = make_tokenizer()
    other.add_tokens(["<think>"])
    uri = saved_model(workplace, "of-another-family", tmp_path / "other", other)
    asked = workplace.preflight_run(
        "distilled-other", dataset=dataset, method=method(uri), teacher=ModelSource(uri=uri)
    )
    with pytest.raises(DiagnosedError) as caught:
        preflight(asked, tmp_path / "preflight")
    failure = caught.value.failure
    assert failure.reason is Reason.TEACHER_TOKENIZER_DIFFERS
    assert f"The teacher {uri} has another tokenizer than {workplace.model}: token {len(other) - 1} is '<think>' " in (
        failure.message
    )
    assert not failure.retryable


def test_preflight_counts_the_teachers_memory(workplace: Workplace, dataset: Dataset, tmp_path: Path) -> None:
    teacher = ModelSource(uri=workplace.model)
    asked = workplace.preflight_run("distilled-memory", dataset=dataset, method=method(workplace.model))
    with_teacher = preflight(asked.model_copy(update={"teacher": teacher}), tmp_path / "with").memory
    without = preflight(asked, tmp_path / "without").memory
    assert with_teacher is not None and without is not None
    parameters = LlamaForCausalLM.from_pretrained(fetched(workplace, tmp_path)).num_parameters()
    assert with_teacher.teacher == 2 * parameters
    assert with_teacher.total == without.total + 2 * parameters


def test_what_the_teacher_could_not_read_is_refused(workplace: Workplace, dataset: Dataset, tmp_path: Path) -> None:
    uri = saved_model(workplace, "of-short-context", tmp_path / "short", make_tokenizer(), max_position_embeddings=32)
    asked = workplace.preflight_run(
        "distilled-short", dataset=dataset, method=method(uri), teacher=ModelSource(uri=uri)
    )
    with pytest.raises(DiagnosedError, match="teacher has a context of 32 tokens") as caught:
        preflight(asked, tmp_path / "preflight")
    assert caught.value.failure.reason is Reason.INVALID_SPEC


def test_an_adapter_on_the_output_layer_is_refused(workplace: Workplace, dataset: Dataset, tmp_path: Path) -> None:
    """TRL would never train it."""
    asked = workplace.preflight_run(
        "distilled-head",
        dataset=dataset,
        method=method(workplace.model),
        teacher=ModelSource(uri=workplace.model),
        adapter=Adapter(lora=LoRA(target_modules=["q_proj", "lm_head"])),
    )
    with pytest.raises(DiagnosedError, match="can't train an adapter on the output layer") as caught:
        preflight(asked, tmp_path / "preflight")
    assert caught.value.failure.reason is Reason.INVALID_SPEC


@pytest.mark.parametrize("more", [-3, 5], ids=["fewer rows", "more rows"])
def test_a_teacher_of_another_padding_is_asked_about_the_models_tokens(more: int) -> None:
    """Sizes of one family have embeddings of different heights for one tokenizer."""
    teacher = LlamaForCausalLM(_config(64))
    rows = 64 + more
    asked = torch.arange(0, 60)[None]
    before = teacher(asked).logits[0]
    fit_vocabulary(teacher, rows)
    after = teacher(asked).logits[0]
    assert after.shape[-1] == teacher.config.vocab_size == rows
    torch.testing.assert_close(after[:, : min(64, rows)], before[:, : min(64, rows)])
    assert after.softmax(-1)[:, 64:].sum() < 1e-30
    teacher(torch.tensor([[rows - 1]]))  # the model may write what the teacher has no token for
