"""What an expert would write with TRL by hand, with the same numbers: the same loss at every step, to the last bit.

The other side of each comparison is plain TRL: its own chat formats, tokenization, masks and loss, and a reference
model of its own. Nothing of ours is in it but the values of the hyperparameters.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl.trainer.dpo_config import DPOConfig
from trl.trainer.dpo_trainer import DPOTrainer
from trl.trainer.sft_config import SFTConfig
from trl.trainer.sft_trainer import SFTTrainer

from finetune_api.finetunejob import DPO, Adapter, LoRA, Method, TrainingData
from tests.integration.trainer.runs import Workplace, preference, question, train_here

TRAINING_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.role == 'assistant' %}{% generation %}{{ m.content }}<|im_end|>{% endgeneration %}"
    "{% else %}{{ m.content }}<|im_end|>{% endif %}{{ '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""CHAT_TEMPLATE, with the markers that TRL wants around what the assistant says."""

LORA = Adapter(lora=LoRA(rank=4, alpha=8, dropout=0.1))
FULL = Adapter(type="Full")
COMMON: dict[str, Any] = {
    "per_device_train_batch_size": 4,
    "num_train_epochs": 2,
    "lr_scheduler_type": "cosine",
    "warmup_steps": 0.1,
    "weight_decay": 0.01,
    "max_length": 96,
    "seed": 17,
    "logging_steps": 1,
    "save_strategy": "no",
    "report_to": "none",
    "disable_tqdm": True,
    "use_cpu": True,
    "bf16": False,
    "gradient_checkpointing": False,
}


@pytest.mark.parametrize(("adapter", "rate"), [(LORA, 1e-2), (FULL, 1e-3)], ids=["LoRA", "Full"])
def test_supervised_fine_tuning_has_the_losses_of_plain_trl(
    workplace: Workplace, base: Path, tmp_path: Path, adapter: Adapter, rate: float
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.chat_template = TRAINING_TEMPLATE
    plain = SFTTrainer(
        model=AutoModelForCausalLM.from_pretrained(base),
        args=SFTConfig(output_dir=str(tmp_path / "plain"), learning_rate=rate, assistant_only_loss=True, **COMMON),
        train_dataset=Dataset.from_list([question(number) for number in range(40)]),
        processing_class=tokenizer,
        peft_config=lora(adapter),
    )
    plain.train()
    ours = losses(workplace, tmp_path, f"parity/sft-{adapter.type}", rate, adapter=adapter)
    assert ours == logged(plain)
    assert min(ours) < 0.8 * ours[0]
    told = column(workplace, f"parity/sft-{adapter.type}", "train_mean_token_accuracy")
    assert told == pytest.approx(logged(plain, "mean_token_accuracy"), abs=1e-6)


@pytest.mark.parametrize(("adapter", "rate"), [(LORA, 1e-3), (FULL, 1e-4)], ids=["LoRA", "Full"])
def test_preference_optimization_has_the_losses_of_plain_trl(
    workplace: Workplace, base: Path, tmp_path: Path, adapter: Adapter, rate: float
) -> None:
    pairs = [preference(number) for number in range(40)]
    plain = DPOTrainer(
        model=str(base),
        args=DPOConfig(output_dir=str(tmp_path / "plain"), learning_rate=rate, beta=0.3, **COMMON),
        train_dataset=Dataset.from_list(pairs),
        processing_class=AutoTokenizer.from_pretrained(base),
        peft_config=lora(adapter),
    )
    plain.train()
    ours = losses(
        workplace,
        tmp_path,
        f"parity/dpo-{adapter.type}",
        rate,
        beta=0.3,
        adapter=adapter,
        method=Method(type="DPO", dpo=DPO(beta=0.3)),
        training=workplace.bucket.put_lines("data/pairs-of-parity.jsonl", pairs),
    )
    assert ours == logged(plain)
    assert min(ours) < 0.9 * ours[0]
    for name, metric in (
        ("mean_token_accuracy", "mean_token_accuracy"),
        ("reward_accuracy", "rewards/accuracies"),
        ("reward_margin", "rewards/margins"),
    ):
        told = column(workplace, f"parity/dpo-{adapter.type}", f"train_{name}")
        assert told == pytest.approx(logged(plain, metric), abs=1e-6), name


def lora(adapter: Adapter) -> LoraConfig | None:
    if adapter.type == "Full":
        return None
    return LoraConfig(
        r=adapter.low_rank.rank,
        lora_alpha=adapter.low_rank.alpha,
        lora_dropout=adapter.low_rank.dropout,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )


def logged(trainer: Any, metric: str = "loss") -> list[float]:
    """Of every step."""
    return [entry[metric] for entry in trainer.state.log_history if "loss" in entry]


def column(workplace: Workplace, output: str, name: str) -> list[float]:
    return [float(row[name]) for row in workplace.results(output)]


def losses(
    workplace: Workplace,
    directory: Path,
    output: str,
    rate: float,
    *,
    training: str | None = None,
    beta: float | None = None,
    **changes: Any,
) -> list[float]:
    """Of every step, by our trainer."""
    run = workplace.train_run(
        output,
        {"learning_rate": rate, "weight_decay": 0.01, "beta": beta},
        dataset=workplace.dataset(training=TrainingData(uri=training or workplace.training), validation=None),
        **changes,
    )
    train_here(run, directory / "ours")
    rows = workplace.results(output)
    assert [int(row["step"]) for row in rows] == list(range(1, 21))
    return [float(row["train_loss"]) for row in rows]
