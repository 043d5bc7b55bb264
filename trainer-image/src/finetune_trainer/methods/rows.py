"""What each method trains on: the columns of its datasets, and an example's rows in them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from finetune_api.finetunejob import Method
from finetune_trainer.data.encode import vision
from finetune_trainer.data.encode.chat_rendering import reads_images
from finetune_trainer.data.encode.tokenization import IGNORED, tokenize, tokenize_preference
from finetune_trainer.data.read.examples import Example, PreferenceExample
from finetune_trainer.methods.prompt_loss import tokenize_with_prompt

Row = dict[str, Any]


class FormatError(ValueError):
    """An example of a format that the method does not train on."""


def features(method: Method, tokenizer: Any) -> Any:
    """The columns, as `datasets` wants them: the tokens and labels of an example, or what vision.to_record makes."""
    from datasets import Features, List, Value

    numbers = List(Value("int32"))
    if reads_images(tokenizer):
        return Features({"text": Value("string"), "turns": List(numbers), "images": List(Value("string"))})
    names = ("prompt_ids", "chosen_ids", "rejected_ids") if method.type == "DPO" else ("input_ids", "labels")
    return Features(dict.fromkeys(names, numbers))


def rows(method: Method, tokenizer: Any, example: Example, files: Sequence[Path], *, training: bool) -> Iterator[Row]:
    """The rows of an example, not truncated. Raises FormatError, or tokenization.TemplateError.

    `tokenizer`: for a vision-language model its processor; then `files` are those of the example's images.

    Validation (`training` is False) is measured on the assistant's tokens alone, whatever the prompt's weight, so that
    runs with different weights can be compared.
    """
    if method.type == "DPO":
        if not isinstance(example, PreferenceExample):
            raise FormatError("method.type is DPO, which learns from pairs of a preferred and a rejected answer.")
        pair = tokenize_preference(tokenizer, example)
        yield {"prompt_ids": pair.prompt_ids, "chosen_ids": pair.chosen_ids, "rejected_ids": pair.rejected_ids}
        return
    if isinstance(example, PreferenceExample):
        raise FormatError("A pair of a preferred and a rejected answer needs method.type DPO.")
    weighted = training and method.sft is not None and method.sft.prompt_loss_weight > 0
    if reads_images(tokenizer):
        if weighted:
            raise FormatError("method.sft.promptLossWeight does not know vision-language models yet. Leave it out.")
        yield from (vision.to_record(row) for row in vision.to_rows(tokenizer, example, files))
        return
    for sequence in tokenize_with_prompt(tokenizer, example) if weighted else tokenize(tokenizer, example):
        yield {"input_ids": sequence.input_ids, "labels": sequence.labels}


def has_loss_within(row: Row, max_length: int) -> bool:
    """Whether the assistant says anything in the first `max_length` tokens. Of images and pairs: yes (preflight)."""
    return "labels" not in row or any(label >= 0 for label in row["labels"][:max_length])


def without_loss(row: Row) -> Row:
    """What to change in a row, so that nothing is learned from it."""
    if "chosen_ids" in row:
        return {"chosen_ids": [], "rejected_ids": []}
    if "turns" in row:
        return {"turns": []}
    return {"labels": [IGNORED] * len(row["labels"])}
