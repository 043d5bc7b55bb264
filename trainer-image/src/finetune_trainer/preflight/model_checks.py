"""Compares what the spec asks of the model with the model's files, before accelerators are requested.

The model is built without weights, and trained on as far as that goes: with its adapter, frozen, packed. What fails
here would fail in training, after its Pods had waited for accelerators.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import structlog

from finetune_api.conditions import Reason
from finetune_api.pod_contracts.run import PreflightRun
from finetune_trainer.data.encode.chat_template import reads_images, text_tokenizer
from finetune_trainer.model.loading import InspectedModel, Shapes
from finetune_trainer.process.failures import DiagnosedError
from finetune_trainer.process.imports import gc_paused_for_imports

NAMED_TOKENS = ("pad_token", "eos_token", "bos_token")
SHOWN_NAMES = 3
_log = structlog.get_logger()


@dataclass(frozen=True)
class CheckedModel:
    """What training will have on its accelerators, by the names that it has there; `warnings`: what is doubtful."""

    warnings: list[str]
    shapes: Shapes
    adapter_shapes: Shapes
    """Of the adapter that is trained; empty where all weights are."""
    adapts_output_layer: bool = False
    """Whether that adapter is on the output layer, too."""


def check_model(run: PreflightRun, model: InspectedModel) -> CheckedModel:
    """Build what is to be trained, without its weights.

    Raises DiagnosedError: ModelInvalid when the files contradict each other, InvalidSpec when the spec asks for what
    the model does not have.
    """
    with gc_paused_for_imports():
        from finetune_trainer.model import adapters
        from finetune_trainer.model.adapter_summary import adapter_summary
        from finetune_trainer.model.skeleton import add_inherited, build_skeleton, weight_shapes
        from finetune_trainer.model.target_modules import ALL_LINEAR

    skeleton, unknown = build_skeleton(model.folder, model.tensors, run.model.uri)
    warnings = [_unknown_weights(run.model.uri, sorted(unknown))] if unknown else []
    shapes, adapter_shapes = weight_shapes(skeleton), model.adapter_shapes
    adapts_output = False
    rows = skeleton.get_input_embeddings().weight.shape[0]
    refuse_tokens_beyond(text_tokenizer(model.tokenizer), rows, run.model.uri)
    if model.adapter is not None:
        uri = str(run.model.adapter_uri)
        tuned = add_inherited(skeleton, model.adapter, model.adapter_shapes, uri)
        adapters.refuse_shared_weights(tuned, Reason.MODEL_INVALID, f"The adapter {uri}")
        _log.info(f"{uri}: {adapter_summary(tuned)}")
        adapts_output = adapters.adapts_output_layer(tuned)
        skeleton = tuned.unload()
    if run.adapter.type == "Full":
        adapter_shapes, adapts_output = {}, False
        if run.adapter.freeze is not None:
            adapters.freeze(skeleton, run.adapter.freeze)
    elif model.adapter is None or run.adapter.inherited == "Merge":
        tuned = adapters.add_lora(skeleton, run.adapter)
        made, adapter_shapes = adapter_summary(tuned), adapters.trained_shapes(tuned)
        adapts_output = adapters.adapts_output_layer(tuned)
        _log.info(str(made))
        if made.left_out and run.adapter.low_rank.target_modules == ALL_LINEAR:
            in_full = " in 4 bits; adapter.type LoRA can" if run.adapter.type == "QLoRA" else ""
            warnings.append(f"{made} peft can't adapt these in this model{in_full}.")
    if run.hyperparameters.packing and not reads_images(model.tokenizer):
        _refuse_mixed(model)
    return CheckedModel(warnings, shapes, adapter_shapes, adapts_output)


def _unknown_weights(uri: str, names: list[str]) -> str:
    more = f" and {len(names) - SHOWN_NAMES} more" if len(names) > SHOWN_NAMES else ""
    return (
        f"The files of {uri} have weights that its config.json does not describe: "
        f"{', '.join(names[:SHOWN_NAMES])}{more}. Check that it is this model's config."
    )


def refuse_tokens_beyond(tokenizer: Any, rows: int, uri: str) -> None:
    """Raises DiagnosedError (ModelInvalid) when texts can contain tokens beyond the embedding's rows.

    Special tokens that neither the chat template nor the tokenizer itself writes are never met: some models have such.
    """
    added = {index: token for index, token in tokenizer.added_tokens_decoder.items() if index >= rows}
    template = str(tokenizer.chat_template or "")
    named = {getattr(tokenizer, name) for name in NAMED_TOKENS}
    beyond = {
        index: token.content
        for index, token in added.items()
        if not token.special or token.content in named or token.content in template
    }
    if not added and len(tokenizer) > rows:
        beyond = {len(tokenizer) - 1: tokenizer.convert_ids_to_tokens(len(tokenizer) - 1)}
    if beyond:
        shown = ", ".join(f"{beyond[index]!r} ({index})" for index in sorted(beyond)[:SHOWN_NAMES])
        more = f" and {len(beyond) - SHOWN_NAMES} more" if len(beyond) > SHOWN_NAMES else ""
        raise DiagnosedError(
            Reason.MODEL_INVALID,
            f"{uri}: the tokenizer has {shown}{more}, and the model's embedding has only the tokens 0 to {rows - 1}. "
            "Upload the tokenizer that belongs to the model, or give the model the rows first "
            "(model.resize_token_embeddings(len(tokenizer)), then save_pretrained).",
        )


def _refuse_mixed(model: InspectedModel) -> None:
    from finetune_trainer.preflight.packing_probe import why_not_packed

    reason = why_not_packed(model.config)
    if reason is not None:
        raise DiagnosedError(
            Reason.INVALID_SPEC,
            f"hyperparameters.packing does not work with a {model.status.architecture}: {reason}. Leave packing out.",
        )
