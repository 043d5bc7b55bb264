"""Checks the teacher of method.distillation, before accelerators are requested."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from finetune_api.conditions import Reason
from finetune_api.pod_contracts.run import ModelSource, PreflightRun
from finetune_trainer.data.encode.chat_template import reads_images, text_tokenizer
from finetune_trainer.model.loading import InspectedModel, inspect_model
from finetune_trainer.preflight.model_checks import CheckedModel, refuse_tokens_beyond
from finetune_trainer.preflight.tokenizer_difference import first_difference
from finetune_trainer.process.failures import DiagnosedError
from finetune_trainer.process.progress_log import log_progress
from finetune_trainer.storage.storage import Storage

FIELD = "method.distillation.teacher"


def check_teacher(
    run: PreflightRun, model: InspectedModel, checked: CheckedModel, storage: Storage, directory: Path
) -> InspectedModel | None:
    """The teacher, without its weights; None of a run that has none.

    Raises DiagnosedError: TeacherTokenizerDiffers, ModelInvalid as of the model itself, or InvalidSpec.
    """
    source = run.teacher
    if source is None:
        return None
    with log_progress(f"reading what the teacher {source.uri} is"):
        teacher = inspect_model(source, storage, directory)
    if reads_images(teacher.tokenizer):
        raise DiagnosedError(
            Reason.INVALID_SPEC, f"{FIELD}: {source.uri} is a vision-language model. Use one that reads only text."
        )
    if checked.adapts_output_layer:
        raise DiagnosedError(
            Reason.INVALID_SPEC,
            "adapter: method.type Distillation can't train an adapter on the output layer. Leave it out of "
            "targetModules.",
        )
    _refuse_other_tokenizer(run.model.uri, text_tokenizer(model.tokenizer), source.uri, teacher.tokenizer)
    _refuse_invalid_weights(source, teacher)
    return teacher


def refuse_short_context(teacher: InspectedModel | None, max_length: int) -> None:
    """Raises DiagnosedError (InvalidSpec) when the teacher can't read what the model may write."""
    context = None if teacher is None else teacher.status.context_length
    if context is not None and context < max_length:
        raise DiagnosedError(
            Reason.INVALID_SPEC,
            f"{FIELD} has a context of {context} tokens, and prompt and completion may have {max_length}. Set "
            f"hyperparameters.maxLength to {context} or less, or use another teacher.",
        )


def parameters_of(teacher: InspectedModel | None) -> int:
    """Of what is in memory: an adapter is merged."""
    return 0 if teacher is None else sum(math.prod(shape) for shape in teacher.shapes.values())


def _refuse_other_tokenizer(uri: str, tokenizer: Any, teacher_uri: str, of_teacher: Any) -> None:
    found = first_difference(tokenizer, of_teacher)
    if found is None:
        return
    raise DiagnosedError(
        Reason.TEACHER_TOKENIZER_DIFFERS,
        f"The teacher {teacher_uri} has another tokenizer than {uri}: {found} Their token probabilities can't be "
        "compared. Use a teacher of the same family, or let the teacher write answers, and learn from these with "
        "method.type SFT.",
    )


def _refuse_invalid_weights(source: ModelSource, teacher: InspectedModel) -> None:
    """Raises DiagnosedError (ModelInvalid) when the teacher's files contradict each other."""
    from finetune_trainer.model.adapters import refuse_shared_weights
    from finetune_trainer.model.skeleton import add_inherited, build_skeleton

    skeleton, _ = build_skeleton(teacher.folder, teacher.tensors, source.uri)
    refuse_tokens_beyond(teacher.tokenizer, skeleton.get_input_embeddings().weight.shape[0], source.uri)
    if teacher.adapter is not None:
        uri = str(source.adapter_uri)
        tuned = add_inherited(skeleton, teacher.adapter, teacher.adapter_shapes, uri)
        refuse_shared_weights(tuned, Reason.MODEL_INVALID, f"The adapter {uri}")
