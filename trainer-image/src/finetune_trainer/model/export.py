"""A trained model as the files that others load: a peft adapter or a whole model, with its tokenizer."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

GENERATION_CONFIG = "generation_config.json"
MODEL_CARD = "README.md"


def write_model(model: Any, tokenizer: Any, base: Path, target: Path) -> None:
    """Save a model to the folder `target`; of a model with an adapter, the adapter alone.

    `base`: the folder that the model was loaded from. A whole model is converted to the precision of its base: it was
    trained in float32, which would be twice the size.
    """
    from peft import PeftModel
    from transformers import AutoConfig, GenerationConfig

    if isinstance(model, PeftModel):
        model.save_pretrained(target, selected_adapters=["default"])  # not a frozen copy of it, for reference
        (target / MODEL_CARD).unlink(missing_ok=True)  # peft's template, with nothing filled in
    else:
        published = base / GENERATION_CONFIG
        if published.exists():
            # Many can be loaded but not saved (a temperature without do_sample), so it is copied below.
            model.generation_config = GenerationConfig()
        kept = AutoConfig.from_pretrained(base, trust_remote_code=False, local_files_only=True).dtype
        for weight in model.parameters() if kept is not None else ():
            weight.data = weight.data.to(kept)  # `model.to` would round rotary frequencies too
        model.save_pretrained(target)
        if published.exists():
            shutil.copyfile(published, target / GENERATION_CONFIG)
    tokenizer.save_pretrained(target)
