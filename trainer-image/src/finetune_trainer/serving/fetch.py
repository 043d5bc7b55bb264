"""The `fetch` command: downloads a model to SERVED_MODEL_DIRECTORY/<name> as a folder that any server can load."""

from __future__ import annotations

import shutil
from pathlib import Path

from finetune_api.pod_contracts.run import SERVED_MODEL_DIRECTORY, FetchRun
from finetune_trainer.model.export import write_model
from finetune_trainer.model.loading import LocalModel, load_model, load_processor
from finetune_trainer.process.progress_log import log_progress
from finetune_trainer.storage.storage import Storage

SCRATCH = ".fetch"
"""On the same file system as the target, so that the complete folder can be renamed."""


def fetch(run: FetchRun, *, models: Path = Path(SERVED_MODEL_DIRECTORY)) -> None:
    """Download a whole model unchanged, or merge an adapter into its base.

    The folder appears once it is complete, and replaces an older one.

    Raises DiagnosedError: ModelNotFound, ModelInvalid, or one of the storage's errors.
    """
    # Not at the top: it imports torch.
    from finetune_trainer.checkpoint.loadable import fetch_loadable, fetched_uri

    scratch, target = models / SCRATCH, models / run.name
    shutil.rmtree(scratch, ignore_errors=True)  # Left behind by a killed process.
    try:
        with log_progress(f"fetching {fetched_uri(run.model)}"):
            local = fetch_loadable(run.model, Storage(run.storage), scratch)
        complete = local.base
        if local.adapter is not None:
            complete = scratch / "merged"
            with log_progress("merging the adapter into its base"):
                merge(local, complete)
        shutil.rmtree(target, ignore_errors=True)
        complete.rename(target)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def merge(local: LocalModel, target: Path) -> None:
    """Save the base with the adapter merged into it, in the base's precision, as a whole model.

    Tokenizer, chat template and generation config are saved, too. Raises DiagnosedError (ModelInvalid).
    """
    from finetune_trainer.generate.generation import stored_dtype
    from finetune_trainer.model.adapters import merge_adapter

    merged = merge_adapter(load_model(local, stored_dtype(local)))
    write_model(merged, load_processor(local), local.base, target)
