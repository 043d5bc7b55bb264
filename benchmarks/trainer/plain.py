"""What an expert would write with TRL by hand. Its checkpoints and its reports are none; it logs every ten steps.

On a GPU he packs, with flash attention, Liger's kernels, and activations kept where there is room for them.
"""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import torch
from datasets import load_dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig
from trl.trainer.sft_config import SFTConfig
from trl.trainer.sft_trainer import SFTTrainer

from benchmarks.trainer.stopwatch import Stopwatch
from benchmarks.trainer.workload import DATA, MODEL, SEED, load_workload
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
    tokenizer = AutoTokenizer.from_pretrained(directory / MODEL)
    tokenizer.chat_template = TEMPLATE
    lora = workload.adapter != "Full"
    four_bits = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )
    model = AutoModelForCausalLM.from_pretrained(
        directory / MODEL,
        dtype=torch.bfloat16 if on_gpu and lora else torch.float32,
        quantization_config=four_bits if workload.adapter == "QLoRA" else None,
    )
    trainer = SFTTrainer(
        model=model,
        args=SFTConfig(
            output_dir=str(directory / "plain"),
            per_device_train_batch_size=workload.plain_per_pass,
            gradient_accumulation_steps=workload.batch // workload.processes // workload.plain_per_pass,
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
            gradient_checkpointing=on_gpu and not lora,
            use_liger_kernel=on_gpu,
            liger_kernel_config={"fused_linear_cross_entropy": False},
            include_num_input_tokens_seen="non_padding",
            fsdp=True if workload.processes > 1 else None,
        ),
        train_dataset=load_dataset("json", data_files=str(directory / DATA), split="train"),
        processing_class=tokenizer,
        peft_config=LoraConfig(r=16, lora_alpha=32, lora_dropout=0.0, target_modules="all-linear") if lora else None,
        callbacks=[stopwatch],
    )
    with attention_over_packed_rows(trainer.model) if on_gpu else nullcontext():
        trainer.train()
    state = trainer.state
    return stopwatch.figures | {
        "trainLoss": state.log_history[-1]["train_loss"],
        "tokensOfStep": state.num_input_tokens_seen / state.global_step,
    }
