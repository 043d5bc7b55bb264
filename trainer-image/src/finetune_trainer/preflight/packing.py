"""Whether several examples share a row, and how many rows that makes."""

from __future__ import annotations

import structlog

from finetune_api.default_hyperparameters import packs_by_default, sequence_length
from finetune_api.finetunejob import DatasetFindings
from finetune_api.pod_contracts.run import PreflightRun
from finetune_trainer.data.encode.packed_rows import packed_rows
from finetune_trainer.data.select.choice import Chosen
from finetune_trainer.methods.method import packs_rows
from finetune_trainer.model.loading import InspectedModel

_log = structlog.get_logger()


def choose_packing(run: PreflightRun, model: InspectedModel, chosen: Chosen) -> bool:
    """`hyperparameters.packing`; omitted: on accelerators, where it pays and the model computes it without a mask.

    `model_checks` has refused a spec that asks for it in vain. Loads torch.
    """
    spec = run.hyperparameters
    if not packs_rows(run.method, model.tokenizer, packing=spec.packing is not False):
        return False
    if spec.packing or not run.on_accelerators:
        return bool(spec.packing)
    examples, rows = _examples(chosen), _rows(run, model, chosen)
    if rows == len(chosen.lengths):  # all are about as long as the longest
        return False
    processes = run.parallelism.nodes * run.parallelism.processes_per_node
    if not packs_by_default(spec, run.method.settings.rules, examples=examples, rows=rows, processes=processes):
        return False
    if reason := _why_not(model):
        _log.info(f"examples are not packed: {reason}")
        return False
    _log.info(f"{examples} examples are packed into {rows} rows (hyperparameters.packing: false trains without)")
    return True


def with_packed_rows(run: PreflightRun, model: InspectedModel, chosen: Chosen) -> DatasetFindings:
    """The dataset's status with the number of training rows when they are packed."""
    assert chosen.status.training is not None
    training = chosen.status.training.model_copy(update={"rows": _rows(run, model, chosen)})
    return chosen.status.model_copy(update={"training": training})


def _rows(run: PreflightRun, model: InspectedModel, chosen: Chosen) -> int:
    assert chosen.status.training is not None
    longest = chosen.status.training.max_tokens
    return packed_rows(
        chosen.lengths, sequence_length(run.hyperparameters.max_length, longest, model.status.context_length)
    )


def _examples(chosen: Chosen) -> int:
    assert chosen.status.training is not None
    return chosen.status.training.examples


def _why_not(model: InspectedModel) -> str | None:
    from finetune_trainer.model.kernels.packed_attention import computes_packed
    from finetune_trainer.preflight.packing_probe import why_not_packed

    if not computes_packed(model.config):
        return f"attention of {model.status.architecture} over packed rows needs a mask over all pairs of tokens"
    return why_not_packed(model.config)
