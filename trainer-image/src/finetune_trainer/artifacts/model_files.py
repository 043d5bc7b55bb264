"""A trained model as the files that others load: a peft adapter or a whole model, with its tokenizer."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

GENERATION_CONFIG = "generation_config.json"
MODEL_CARD = "README.md"


def write_model(model: Any, tokenizer: Any, base: Path, target: Path) -> None:
    """Save a model to `target`: of one with an adapter, that alone. `base`: the folder that it was loaded from."""
    from peft import PeftModel
    from transformers import GenerationConfig

    if isinstance(model, PeftModel):
        model.save_pretrained(target, selected_adapters=["default"])  # not DPO's frozen copy of it
        (target / MODEL_CARD).unlink(missing_ok=True)  # peft's template, with nothing filled in
    else:
        published = base / GENERATION_CONFIG
        if published.exists():
            # Many can be loaded but not saved (a temperature without do_sample), so it is copied below.
            model.generation_config = GenerationConfig()
        model.save_pretrained(target)
        if published.exists():
            shutil.copyfile(published, target / GENERATION_CONFIG)
    tokenizer.save_pretrained(target)
