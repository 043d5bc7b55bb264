"""Chat examples with images for vision-language models: rows on disk, pixels per batch.

A row has the conversation as text, with the model's placeholder for each image, and the images' files. The processor
of the model puts an image's tokens in the place of its placeholder, however many they are; the spans that carry loss
move with them. Images are opened for one batch at a time, so that memory does not grow with the dataset.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from finetune_api.conditions import Reason
from finetune_api.pod_contracts.outcome import Failure
from finetune_trainer.data.encode.chat_template import TemplateError, reads_images
from finetune_trainer.data.encode.tokenization import IGNORED, TokenizedExample, render_turns
from finetune_trainer.data.encode.turns import RenderedChat
from finetune_trainer.data.images import images
from finetune_trainer.data.read.examples import ChatExample, Example
from finetune_trainer.process.failures import DiagnosedError

Item = TypeVar("Item")

ONLY_CHAT = "A vision-language model is fine-tuned on chat messages."
NO_SHARDED_VISION = "parallelism.strategy FSDP does not know vision-language models yet. Use DDP."


@dataclass(frozen=True)
class VisionRow:
    """A rendered text, and the files of the images whose placeholders it has, in order."""

    rendered: RenderedChat
    images: tuple[Path, ...]


def with_images(
    processor: Any, store: images.ImageStore, items: Iterable[Item], example_of: Callable[[Item], Example]
) -> Iterator[tuple[Item, Callable[[], list[Path]]]]:
    """Items, and what gives the files of each one's images (raises ImageError); none for a model that reads only text.

    `example_of`: the example of an item.
    """
    if not reads_images(processor):
        return ((item, list) for item in items)
    return ((item, files.result) for item, files in store.ahead(items, example_of))


def to_rows(processor: Any, example: Example, files: Sequence[Path]) -> list[VisionRow]:
    """The rows of an example. Raises TemplateError."""
    if not isinstance(example, ChatExample):
        raise TemplateError(ONLY_CHAT)
    placeholder = processor.image_token
    rows = []
    for rendered in render_turns(processor, example):
        count = rendered.text.count(placeholder)
        if count > len(files):
            raise TemplateError(f"The text has {placeholder!r}, which stands for an image in this model.")
        rows.append(VisionRow(rendered, tuple(files[:count])))
    if not any(len(row.images) == len(files) for row in rows):
        raise TemplateError("The model's chat template leaves out an image.")
    return rows


def encode(processor: Any, rows: Sequence[VisionRow], tensors: str | None = None) -> tuple[dict[str, Any], list[int]]:
    """What the model takes, with labels, padded on the right; and for each row where its last image's tokens end.

    `tensors`: as transformers' return_tensors; None: lists. Raises DiagnosedError (DatasetInvalid).
    """
    opened = images.load_all([file for row in rows for file in row.images])
    try:
        encoded = dict(
            processor(
                text=[row.rendered.text for row in rows],
                images=opened or None,
                add_special_tokens=False,
                padding=True,
                padding_side="right",
                return_offsets_mapping=True,
                return_text_replacement_offsets=True,
            )
        )
    except (ValueError, TypeError, IndexError, StopIteration) as error:
        raise DiagnosedError(Reason.DATASET_INVALID, f"The model's processor refuses the images: {error}") from error
    offsets = encoded.pop("offset_mapping")
    replaced = encoded.pop("text_replacement_offsets", None) or [[] for _ in rows]
    labels, ends = [], []
    for row, ids, spans, changes in zip(rows, encoded["input_ids"], offsets, replaced, strict=True):
        turns = [(_moved(start, changes), _moved(end, changes)) for start, end in row.rendered.turns]
        images_end = max((change["new_span"][1] for change in changes), default=0)
        labels.append(
            [
                token if any(start < last and first < end for start, end in turns) else IGNORED
                for token, (first, last) in zip(ids, spans, strict=True)
            ]
        )
        ends.append(sum(1 for first, last in spans if first < last and first < images_end))
    encoded["labels"] = labels
    if tensors is None:
        return encoded, ends
    from transformers import BatchFeature

    return dict(BatchFeature(encoded, tensor_type=tensors)), ends


def encode_prompt(processor: Any, text: str, files: Sequence[Path], tensors: str | None = None) -> Mapping[str, Any]:
    """What the model takes for a prompt with a placeholder for each image. Raises TemplateError."""
    if text.count(processor.image_token) != len(files):
        raise TemplateError(
            f"The prompt has {len(files)} images, and {processor.image_token!r} another number of times."
        )
    opened = images.load_all(files)
    return dict(processor(text=[text], images=opened or None, add_special_tokens=False, return_tensors=tensors))


def tokenize(processor: Any, example: Example, files: Sequence[Path]) -> list[TokenizedExample]:
    """The sequences of an example with images, not truncated. Raises as `to_rows` and `encode` do."""
    return [_tokenized(processor, row) for row in to_rows(processor, example, files)]


def _tokenized(processor: Any, row: VisionRow) -> TokenizedExample:
    encoded, (images_end,) = encode(processor, [row])
    return TokenizedExample(list(encoded["input_ids"][0]), list(encoded["labels"][0]), images_end)


@dataclass(frozen=True)
class VisionCollator:
    """Makes a batch of rows as `to_record` wrote them. Sequences are cut at `max_length` tokens, never in an image."""

    processor: Any
    max_length: int

    def __call__(self, records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Raises DiagnosedError, also of a batch that one of torch's workers made."""
        from torch.utils.data import get_worker_info

        try:
            return self._batch(records)
        except DiagnosedError as error:
            if get_worker_info() is None:
                raise
            raise RefusedBatchError(error.failure.model_dump_json()) from error

    def _batch(self, records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        encoded, ends = encode(self.processor, [from_record(record) for record in records], "pt")
        if max(ends) > self.max_length:
            raise DiagnosedError(Reason.DATASET_INVALID, too_many_image_tokens(max(ends), self.max_length))
        shape = encoded["input_ids"].shape
        return {name: value[:, : self.max_length] if value.shape == shape else value for name, value in encoded.items()}


class RefusedBatchError(DiagnosedError):
    """A batch that can't be made. torch takes an exception from a worker as text, with the traceback before it, and
    makes one of the same type of that."""

    def __init__(self, text: str) -> None:
        content = text.rpartition(f"{type(self).__name__}: ")[2]
        failure = Failure.model_validate_json(content)
        super().__init__(failure.reason, failure.message)
        self.failure = failure
        self._text = content if content == text else failure.message

    def __str__(self) -> str:
        return self._text


def too_many_image_tokens(images_end: int, max_length: int) -> str:
    """What is wrong with an example whose images need more room than there is."""
    return (
        f"The images reach up to token {images_end} of the example, beyond the {max_length} of maxLength. Use fewer or "
        "smaller images ('detail': 'low'), or raise hyperparameters.maxLength."
    )


def to_record(row: VisionRow) -> dict[str, Any]:
    """A row as a record of a Hugging Face dataset."""
    return {
        "text": row.rendered.text,
        "turns": [list(turn) for turn in row.rendered.turns],
        "images": [str(file) for file in row.images],
    }


def from_record(record: Mapping[str, Any]) -> VisionRow:
    """The row of a record."""
    turns = [(int(start), int(end)) for start, end in record["turns"]]
    return VisionRow(RenderedChat(record["text"], turns=turns), tuple(Path(file) for file in record["images"]))


def _moved(position: int, changes: Sequence[Mapping[str, Any]]) -> int:
    """Where a position of the text is after placeholders before it have been replaced."""
    before = [change for change in changes if change["span"][1] <= position]
    return position + sum(len(change["replacement"]) - len(change["text"]) for change in before)
