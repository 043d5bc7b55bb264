"""What an expert would write with TRL by hand. Its checkpoints and its reports are none; it logs every ten steps."""

from __future__ import annotations

from pathlib import Path

import torch
from datasets import load_dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl.trainer.sft_config import SFTConfig
from trl.trainer.sft_trainer import SFTTrainer

from benchmarks.trainer.stopwatch import Stopwatch
from benchmarks.trainer.workload import DATA, MODEL, SEED, load_workload

TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.role == 'assistant' %}{% generation %}{{ m.content }}<|im_end|>{% endgeneration %}"
    "{% else %}{{ m.content }}<|im_end|>{% endif %}{{ '\n' }}{% endfor %}"
)


def train(directory: Path) -> dict[str, float]:
    """Train the workload of a folder; the figures of this process."""
    workload, on_gpu = load_workload(directory), torch.cuda.is_available()
    stopwatch = Stopwatch(workload.warm_up)
    tokenizer = AutoTokenizer.from_pretrained(directory / MODEL)
    tokenizer.chat_template = TEMPLATE
    lora = workload.adapter == "LoRA"
    trainer = SFTTrainer(
        model=AutoModelForCausalLM.from_pretrained(
            directory / MODEL, dtype=torch.bfloat16 if on_gpu and lora else torch.float32
        ),
        args=SFTConfig(
            output_dir=str(directory / "plain"),
            per_device_train_batch_size=workload.split.per_pass,
            gradient_accumulation_steps=workload.split.passes,
            num_train_epochs=1,
            learning_rate=1e-4,
            lr_scheduler_type="cosine",
            warmup_steps=0.1,
            max_length=workload.max_length,
            packing=workload.packing,
            assistant_only_loss=True,
            seed=SEED,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            use_cpu=not on_gpu,
            bf16=on_gpu,
            gradient_checkpointing=on_gpu,
            fsdp=True if workload.processes > 1 else None,
        ),
        train_dataset=load_dataset("json", data_files=str(directory / DATA), split="train"),
        processing_class=tokenizer,
        peft_config=LoraConfig(r=16, lora_alpha=32, lora_dropout=0.0, target_modules="all-linear") if lora else None,
        callbacks=[stopwatch],
    )
    trainer.train()
    return stopwatch.figures | {"trainLoss": trainer.state.log_history[-1]["train_loss"]}
