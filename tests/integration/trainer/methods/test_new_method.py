"""A method that only this file knows goes from the data to the published result: it is a module and a line.

It generates its answers and rewards even tokens, so it has no labels, no answers of the data's, and no loss on held-out
examples: what an online method lacks.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, cast

import pytest
import torch
from transformers import DataCollatorWithPadding, Trainer, TrainingArguments

from finetune_api.base import ApiModel
from finetune_api.finetunejob import Dataset, Method, MethodRules, TrainingData, ValidationData
from finetune_api.sources import parse_s3
from finetune_trainer.checkpoint import checkpoints, evaluation_records
from finetune_trainer.checkpoint.saving import Resumable
from finetune_trainer.data.encode.placeholders import prompt_ids
from finetune_trainer.data.encode.tokenization import IGNORED
from finetune_trainer.data.encode.tokenization import TokenizedExample as Tokens
from finetune_trainer.data.read.examples import ChatExample, Example
from finetune_trainer.methods import samples
from finetune_trainer.methods.method import METHODS, Question, RegisteredMethod, Row, TrainerParts
from finetune_trainer.methods.method import Method as TrainingMethod
from finetune_trainer.model.memory import MethodMemory
from finetune_trainer.preflight.preflight import preflight
from finetune_trainer.storage.storage import Storage
from tests.integration.trainer.runs import Workplace, train_here


class Even(ApiModel):
    """The method's settings in the API."""

    rules: ClassVar = MethodRules(
        formats=("Chat",), learning_rates={"LoRA": 1e-2}, most_epochs=2, packs=False, shards=False, forgets=False
    )

    reward: float = 1.0

    def hyperparameters(self) -> dict[str, float]:
        return {}


class MethodWithEven(ApiModel):
    """spec.method, with the method among its types."""

    type: Literal["Even"] = "Even"
    even: Even = Even()

    @property
    def settings(self) -> Even:
        return self.even


@dataclass(frozen=True)
class EvenMethod(TrainingMethod):
    spec: Even

    @property
    def memory(self) -> MethodMemory:
        return MethodMemory()

    @property
    def metrics(self) -> Mapping[str, str]:
        return {"reward": "reward"}

    def tokenize(self, processor: Any, example: Example, images: Sequence[Path]) -> list[Tokens]:
        ids = _prompt(processor, example)
        return [Tokens(ids, [IGNORED] * len(ids))]

    def row_lengths(self, processor: Any, sequences: Sequence[Tokens], max_length: int) -> list[int]:
        return [len(sequence.input_ids) for sequence in sequences]

    def refusal(self, sequences: Sequence[Tokens], max_length: int) -> str:
        return ""

    def columns(self, processor: Any) -> Any:
        from datasets import Features, List, Value

        return Features({"input_ids": List(Value("int32"))})

    def to_rows(
        self, processor: Any, example: Example, sequences: Sequence[Tokens], *, training: bool
    ) -> Iterator[Row]:
        yield from ({"input_ids": sequence.input_ids} for sequence in sequences)

    def is_learned_from(self, row: Row, max_length: int) -> bool:
        return True

    def question(self, row: Row) -> Question | None:
        return Question(list(row["input_ids"]), [])

    def build_trainer(self, parts: TrainerParts) -> Any:
        trainer = EvenTrainer(
            args=TrainingArguments(**parts.arguments),
            model=parts.model,
            train_dataset=parts.training,
            eval_dataset=parts.validation,
            processing_class=parts.processor,
            data_collator=DataCollatorWithPadding(parts.processor),
            callbacks=parts.callbacks,
        )
        trainer.reward = self.spec.reward
        return trainer


class EvenTrainer(Resumable, Trainer):
    """REINFORCE on one generated token."""

    reward = 0.0

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        rewards, chosen = self._rewards(model, inputs)
        self.log({"reward": float(rewards.mean())})
        return -((rewards - 0.5) * chosen).mean()

    def evaluate(self, *arguments: Any, **settings: Any) -> dict[str, float]:
        rewards = [self._rewards(self.model, inputs)[0].mean() for inputs in self.get_eval_dataloader()]
        metrics = {"eval_reward": float(torch.stack(rewards).mean())}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def _rewards(self, model: Any, inputs: Any) -> tuple[torch.Tensor, torch.Tensor]:
        last = inputs["attention_mask"].sum(dim=1) - 1
        logits = model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]).logits
        likely = torch.distributions.Categorical(logits=logits[torch.arange(len(last)), last])
        generated = likely.sample()
        return self.reward * (generated % 2 == 0).float(), likely.log_prob(generated)


def _prompt(tokenizer: Any, example: Example) -> list[int]:
    assert isinstance(example, ChatExample)
    return prompt_ids(tokenizer, example.to_template()[:-1], ())


@pytest.fixture
def spec(monkeypatch: pytest.MonkeyPatch) -> Method:
    """What a new method takes: a line of METHODS, and its type in the API."""
    module = sys.modules[__name__]
    monkeypatch.setitem(sys.modules, "even_method", module)
    monkeypatch.setattr(samples, "SAMPLE_TOKENS", 4)
    monkeypatch.setitem(METHODS, "Even", RegisteredMethod("even_method:EvenMethod", ("Chat",)))
    return cast(Method, MethodWithEven())


def test_a_new_method_learns_and_is_published(
    workplace: Workplace, storage: Storage, tmp_path: Path, spec: Method
) -> None:
    dataset = Dataset(
        training=TrainingData(uri=workplace.training), validation=ValidationData(uri=workplace.validation)
    )
    asked = workplace.preflight_run("even", dataset=dataset).model_copy(update={"method": spec})
    report = preflight(asked, tmp_path / "preflight")
    assert report.dataset.training is not None
    assert (report.dataset.training.examples, report.dataset.training.rows) == (40, 40)

    run = workplace.train_run("even", {"learning_rate": 5e-2}, dataset=dataset)
    run = run.model_copy(update={"method": spec})
    trained = train_here(run, tmp_path / "train")
    assert trained.result is not None
    rows = workplace.results("even")
    rewards = [float(row["valid_reward"]) for row in rows if row["valid_reward"]]
    assert len(rewards) == 2
    assert rewards[-1] > 0.9
    assert not any(row["valid_loss"] for row in rows)
    page = workplace.bucket.read(trained.result.uri + "/report.html").decode()
    assert "generated greedily" in page
    assert "Reference" not in page
    assert ">Reward<" in page


def test_an_evaluation_without_a_loss_is_not_repeated_by_the_next_attempt(
    workplace: Workplace, storage: Storage, tmp_path: Path, spec: Method
) -> None:
    run = workplace.train_run("even-again", {"epochs": 1.0, "total_steps": 10}).model_copy(update={"method": spec})
    train_here(run, tmp_path / "train")
    (*_, newest) = checkpoints.list_committed(storage, parse_s3(run.output_uri))
    record = evaluation_records.find_record(storage, newest)
    assert record is not None
    assert {"step", "eval_reward"} <= record.keys()
