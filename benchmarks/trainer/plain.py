"""What an expert would write with TRL by hand. Its checkpoints and its reports are none; it logs every ten steps.

On a GPU he packs (but for DPO, where TRL can't), with flash attention, Liger's kernels, and activations kept where
there is room for them. QLoRA's adapter is in bfloat16, as TRL has it; ours is in float32.
"""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from datasets import load_dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig
from trl.trainer.dpo_config import DPOConfig
from trl.trainer.dpo_trainer import DPOTrainer
from trl.trainer.sft_config import SFTConfig
from trl.trainer.sft_trainer import SFTTrainer

from benchmarks.trainer.stopwatch import Stopwatch
from benchmarks.trainer.workload import BETA, DATA, MODEL, SEED, Workload, load_workload
from finetune_trainer.model.kernels.packed_attention import attention_over_packed_rows

TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.role == 'assistant' %}{% generation %}{{ m.content }}<|im_end|>{% endgeneration %}"
    "{% else %}{{ m.content }}<|im_end|>{% endif %}{{ '\n' }}{% endfor %}"
)


def train_with_trl(directory: Path) -> dict[str, float]:
    """Train the workload of a folder; the figures of this process."""
    workload, on_gpu = load_workload(directory), torch.cuda.is_available()
    stopwatch = Stopwatch(workload.warm_up)
    is_lora = workload.adapter != "Full"
    build = _dpo_trainer if workload.method == "DPO" else _sft_trainer
    trainer = build(
        workload,
        _arguments(workload, directory),
        train_dataset=load_dataset("json", data_files=str(directory / DATA), split="train"),
        model=_load_model(workload, directory / MODEL),
        processing_class=AutoTokenizer.from_pretrained(directory / MODEL),
        peft_config=LoraConfig(r=16, lora_alpha=32, lora_dropout=0.0, target_modules="all-linear") if is_lora else None,
        callbacks=[stopwatch],
    )
    with attention_over_packed_rows(trainer.model) if on_gpu and workload.packing else nullcontext():
        trainer.train()
    state = trainer.state
    return stopwatch.figures | {
        "trainLoss": state.log_history[-1]["train_loss"],
        "tokensOfStep": state.num_input_tokens_seen / state.global_step,
    }


def _sft_trainer(workload: Workload, arguments: dict[str, Any], **parts: Any) -> Any:
    parts["processing_class"].chat_template = TEMPLATE
    return SFTTrainer(args=SFTConfig(packing=workload.packing, assistant_only_loss=True, **arguments), **parts)


def _dpo_trainer(workload: Workload, arguments: dict[str, Any], train_dataset: Any, **parts: Any) -> Any:
    pairs = train_dataset.map(_as_trl_names_it, remove_columns=train_dataset.column_names)
    return DPOTrainer(args=DPOConfig(beta=BETA, **arguments), train_dataset=pairs, **parts)


def _as_trl_names_it(pair: dict[str, Any]) -> dict[str, Any]:
    """OpenAI's form of a preference pair, in TRL's words."""
    return {
        "prompt": pair["input"]["messages"],
        "chosen": pair["preferred_output"],
        "rejected": pair["non_preferred_output"],
    }


def _load_model(workload: Workload, folder: Path) -> Any:
    on_gpu, is_lora = torch.cuda.is_available(), workload.adapter != "Full"
    four_bits = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )
    return AutoModelForCausalLM.from_pretrained(
        folder,
        dtype=torch.bfloat16 if on_gpu and is_lora else torch.float32,
        quantization_config=four_bits if workload.adapter == "QLoRA" else None,
    )


def _arguments(workload: Workload, directory: Path) -> dict[str, Any]:
    """Of a run of either method."""
    on_gpu = torch.cuda.is_available()
    return {
        "output_dir": str(directory / "plain"),
        "per_device_train_batch_size": workload.plain_per_pass,
        "gradient_accumulation_steps": workload.batch // workload.processes // workload.plain_per_pass,
        "num_train_epochs": 1,
        "learning_rate": 1e-4,
        "lr_scheduler_type": "cosine",
        "warmup_steps": 0.1,
        "max_length": workload.max_length,
        "seed": SEED,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "use_cpu": not on_gpu,
        "bf16": on_gpu,
        "gradient_checkpointing": on_gpu and workload.processes > 1,
        "use_liger_kernel": on_gpu,
        "liger_kernel_config": {"fused_linear_cross_entropy": False},
        "include_num_input_tokens_seen": "non_padding",
        "fsdp": True if workload.processes > 1 else None,
    }
