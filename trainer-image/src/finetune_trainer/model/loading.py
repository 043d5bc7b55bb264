"""Models: fetched to the local disk, checked, and loaded. Only from safetensors; code in a model is never run."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune_api.conditions import Reason
from finetune_api.finetunejob import ModelStatus
from finetune_api.pod_contracts.run import ModelSource
from finetune_trainer.model.folders import (
    ADAPTER_CONFIG,
    PICKLE_PATTERNS,
    ModelFolder,
    is_adapter,
    matches,
    open_folder,
    text_files,
    weight_files,
)
from finetune_trainer.model.weight_headers import ADAPTER_NAME, WHOLE_NAME, Tensors, files_to_load, join
from finetune_trainer.process.failures import DiagnosedError, first_line
from finetune_trainer.storage.storage import Storage

if TYPE_CHECKING:
    import torch

PROCESSOR_FILES = ("processor_config.json", "preprocessor_config.json")
WEIGHTS_KEY = "transformers_weights"
"""Of a config: the file that transformers loads in place of those with the usual names."""
CONTEXT_LENGTHS = ("max_position_embeddings", "max_seq_len", "max_sequence_length", "seq_length")
"""The names that configs have for it; the last two only older ones."""
LONGEST_CONTEXT = 2**31 - 1
Shapes = Mapping[str, tuple[int, ...]]
"""The lengths of every weight's dimensions, by the weight's name."""
Device = int | str
"""An accelerator's number, or META."""
META = "meta"
"""torch's device of tensors that have a shape and no numbers."""
CONFIG_FILES = ("config.json", "tokenizer_config.json", "processor_config.json", "adapter_config.json")


@dataclass(frozen=True)
class LocalModel:
    """A model on the local disk: a base model, and possibly a peft adapter on it."""

    base: Path
    adapter: Path | None = None

    @property
    def tokenizer(self) -> Path:
        """The folder to load the tokenizer from: the adapter's, where one came with it."""
        if self.adapter is not None and (self.adapter / "tokenizer_config.json").exists():
            return self.adapter
        return self.base


def fetch_model(source: ModelSource, storage: Storage, directory: Path) -> LocalModel:
    """Fetch a model to below `directory`, checked against its manifest where a job of ours made it.

    Raises DiagnosedError: ModelNotFound, ModelInvalid, or one of the storage's.
    """
    base, adapter = find_model(source, storage)
    local = LocalModel(directory / "base", None if adapter is None else directory / "adapter")
    paths = base.paths()
    base.fetch(text_files(paths), local.base)
    refuse_code(local.base, base.uri)
    base.fetch(files_to_load(local.base, paths, base.uri), local.base)
    if adapter is not None and local.adapter is not None:
        adapter.fetch([*text_files(adapter.paths()), ADAPTER_NAME], local.adapter)
        refuse_code(local.adapter, adapter.uri)
    return local


@dataclass(frozen=True)
class InspectedModel:
    """What a model's configuration, tokenizer and weight headers say, without its weights."""

    folder: Path
    """Where its configs and its tokenizer are."""
    adapter: Path | None
    """Where the config of the adapter that it comes with is."""
    status: ModelStatus
    tokenizer: Any
    """For a vision-language model its processor, as `load_processor` gives it."""
    config: Any
    """transformers' config of the language model."""
    tensors: Tensors
    """The whole model's weights."""
    adapter_shapes: Shapes
    """Of the adapter's that comes with it; empty without one."""

    @property
    def shapes(self) -> Shapes:
        """Of the whole model's weights."""
        return shapes_of(self.tensors)


def inspect_model(source: ModelSource, storage: Storage, directory: Path) -> InspectedModel:
    """Inspect a model without fetching its weights.

    Raises DiagnosedError as `fetch_model` does.
    """
    from transformers import AutoConfig

    base, adapter = find_model(source, storage)
    paths = base.paths()
    base.fetch(text_files(paths), directory)
    refuse_code(directory, base.uri)
    files = files_to_load(directory, paths, base.uri)
    with as_model_invalid(f"The config of {base.uri} does not load"):
        config = AutoConfig.from_pretrained(directory, trust_remote_code=False, local_files_only=True)
    _refuse_other_than_language(config, base.uri)
    adapter_folder = None if adapter is None else directory / "adapter"
    if adapter is not None and adapter_folder is not None:
        adapter.fetch(text_files(adapter.paths()), adapter_folder)
        refuse_code(adapter_folder, adapter.uri)
    tokenizer = load_processor(LocalModel(directory, adapter_folder))
    tensors = join(base.headers(files), files, base.uri)
    status = ModelStatus(
        architecture=(config.architectures or [config.model_type])[0],
        parameters=sum(math.prod(tensor.shape) for tensor in tensors.values()),
        context_length=context_length(config, getattr(tokenizer, "tokenizer", tokenizer)),
    )
    adapter_shapes = {} if adapter is None else shapes_of(adapter.headers([ADAPTER_NAME])[ADAPTER_NAME])
    return InspectedModel(
        directory, adapter_folder, status, tokenizer, config.get_text_config(), tensors, adapter_shapes
    )


def shapes_of(tensors: Tensors) -> Shapes:
    """The shape of every weight, by name."""
    return {name: tensor.shape for name, tensor in tensors.items()}


def load_tokenizer(folder: Path) -> Any:
    """The tokenizer of a local folder, with a pad token. Raises DiagnosedError (ModelInvalid)."""
    from transformers import AutoTokenizer

    with as_model_invalid("The tokenizer does not load"):
        return _checked(AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True))


def load_processor(local: LocalModel) -> Any:
    """The processor of a vision-language model, whose tokenizer has a pad token; of another model the tokenizer.

    Raises DiagnosedError (ModelInvalid).
    """
    from transformers import AutoProcessor

    if not is_vision_model(local.base):
        return load_tokenizer(local.tokenizer)
    folder = local.tokenizer if _has_processor(local.tokenizer) else local.base
    with as_model_invalid("The processor of the vision-language model does not load"):
        processor = AutoProcessor.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
        _checked(processor.tokenizer)
        if getattr(processor, "image_token", None) is None:
            raise DiagnosedError(
                Reason.MODEL_INVALID,
                f"{type(processor).__name__} has no token that stands for an image: it can't be fine-tuned on images.",
            )
        return processor


def _checked(tokenizer: Any) -> Any:
    if not tokenizer.is_fast:
        raise DiagnosedError(Reason.MODEL_INVALID, "The tokenizer has no tokenizer.json (a fast tokenizer).")
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    if tokenizer.pad_token is None:
        raise DiagnosedError(Reason.MODEL_INVALID, "The tokenizer has neither a pad token nor an end-of-text token.")
    return tokenizer


def load_model(
    local: LocalModel,
    dtype: torch.dtype,
    *,
    trainable_adapter: bool = False,
    quantization: Any = None,
    device: Device | None = None,
) -> Any:
    """The language model, or vision-language model, with its adapter if it has one.

    `quantization`: transformers' config of it, for a base that is kept in fewer bits. `device`: where the weights are
    put as they are read; META: nowhere. None: host memory, and quantized ones on the accelerator. Raises DiagnosedError
    (ModelInvalid).
    """
    from transformers import AutoModelForCausalLM, AutoModelForImageTextToText
    from transformers.utils import logging

    logging.disable_progress_bar()
    with as_model_invalid("The model does not load"):
        sees = is_vision_model(local.base)
        loaded: Any = (AutoModelForImageTextToText if sees else AutoModelForCausalLM).from_pretrained(
            local.base,
            dtype=dtype,
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=True,
            quantization_config=quantization,
            device_map=None if device is None else {"": device},
            output_loading_info=True,
        )
    model, loading = loaded
    if loading["missing_keys"]:
        raise DiagnosedError(
            Reason.MODEL_INVALID,
            f"The model's files lack weights: {', '.join(sorted(loading['missing_keys'])[:3])}, ...",
        )
    if local.adapter is None:
        return model
    from peft import PeftModel

    with as_model_invalid("The adapter does not load"):
        tuned = PeftModel.from_pretrained(
            model,
            local.adapter,
            is_trainable=trainable_adapter,
            use_safetensors=True,
            low_cpu_mem_usage=device == META,  # it can't copy into weights on the meta device
        )
        return tuned.to(META) if device == META else tuned


def is_vision_model(folder: Path) -> bool:
    """Whether the model in a folder reads images."""
    from transformers import AutoConfig
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

    if not _has_processor(folder):
        return False
    kind = AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True).model_type
    return kind in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES


def _has_processor(folder: Path) -> bool:
    return any((folder / name).exists() for name in PROCESSOR_FILES)


def refuse_code(folder: Path, uri: str) -> None:
    """Raises DiagnosedError (ModelInvalid) when a config wants Python code of the model's own to be run."""
    for name in CONFIG_FILES:
        if (folder / name).exists() and "auto_map" in _read_object(folder / name):
            raise DiagnosedError(
                Reason.MODEL_INVALID,
                f"{uri}: {name} has an auto_map: it wants code of its own to be run, which is never done. "
                "Use a model whose architecture is part of transformers, and remove auto_map from its files.",
            )
    weights = _read_object(folder / "config.json").get(WEIGHTS_KEY) if (folder / "config.json").exists() else None
    if weights not in (None, WHOLE_NAME):
        raise DiagnosedError(
            Reason.MODEL_INVALID,
            f"{uri}: {WEIGHTS_KEY} in config.json is {str(weights)[:200]!r}, and only files with the usual names are "
            f"read. Rename that file to {WHOLE_NAME}, and remove {WEIGHTS_KEY}.",
        )


def find_model(source: ModelSource, storage: Storage) -> tuple[ModelFolder, ModelFolder | None]:
    """The folders of a base model and its adapter, listed and found to hold configs and safetensors.

    Nothing is fetched, so this comes before whatever takes long. Raises DiagnosedError as `fetch_model` does.
    """
    base = open_folder(source.uri, source.digest if source.adapter_uri is None else None, storage)
    _refuse_incomplete(base, "config.json", "a Hugging Face model folder")
    if source.adapter_uri is None:
        return base, None
    adapter = open_folder(source.adapter_uri, source.digest, storage)
    _refuse_incomplete(adapter, ADAPTER_CONFIG, "a peft adapter")
    if ADAPTER_NAME not in adapter.paths():
        raise DiagnosedError(Reason.MODEL_INVALID, f"{adapter.uri} has no {ADAPTER_NAME}: it must be a peft adapter.")
    return base, adapter


def _refuse_incomplete(folder: ModelFolder, config: str, kind: str) -> None:
    paths = folder.paths()
    if config == "config.json" and is_adapter(paths):
        raise DiagnosedError(
            Reason.MODEL_INVALID,
            f"{folder.uri} is a peft adapter, not a whole model. Name the job that made it as model.fineTuneJobRef, or "
            "merge the adapter into its base (merge_and_unload, save_pretrained) and upload that.",
        )
    if config not in paths:
        raise DiagnosedError(Reason.MODEL_INVALID, f"{folder.uri} has no {config}: it must be {kind}.")
    if weight_files(paths):
        return
    pickles = [path for path in paths if matches(path, PICKLE_PATTERNS)]
    held = f"only {', '.join(pickles[:3])}, which can run code when loaded" if pickles else "no weights"
    raise DiagnosedError(
        Reason.MODEL_INVALID, f"{folder.uri} has {held}. Store the weights as safetensors (save_pretrained)."
    )


def _refuse_other_than_language(config: Any, uri: str) -> None:
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
        MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES,
    )

    known = (*MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, *MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES)
    if config.model_type not in known:
        raise DiagnosedError(
            Reason.MODEL_INVALID,
            f"{uri} is a {config.model_type!r} model, which is neither a causal language model nor a vision-language "
            "model.",
        )


def context_length(config: Any, tokenizer: Any = None) -> int | None:
    """The longest sequence that the model was made for; None where nothing says so (ALiBi and states have no limit).

    A tokenizer without a known limit says 1e30.
    """
    text = config.get_text_config()
    lengths = [getattr(text, name, None) for name in CONTEXT_LENGTHS] + [getattr(tokenizer, "model_max_length", None)]
    return next((int(length) for length in lengths if length and 0 < length <= LONGEST_CONTEXT), None)


def _read_object(file: Path) -> dict[str, Any]:
    try:
        value = json.loads(file.read_bytes())
    except (ValueError, RecursionError) as error:
        raise DiagnosedError(Reason.MODEL_INVALID, f"{file.name} is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise DiagnosedError(Reason.MODEL_INVALID, f"{file.name} must hold a JSON object.")
    return value


@contextmanager
def as_model_invalid(what: str) -> Iterator[None]:
    """Turn any exception but an exhausted memory into ModelInvalid: untrusted files can fail to load in any way."""
    try:
        yield
    except (DiagnosedError, MemoryError):
        raise
    except Exception as error:
        if type(error).__name__ == "OutOfMemoryError":  # torch's; named, for torch is not imported here
            raise
        raise DiagnosedError(Reason.MODEL_INVALID, f"{what}: {first_line(error)}") from error
