"""What each method trains on: the columns of its datasets, and an example's rows in them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from finetune_api.finetunejob import Method
from finetune_trainer.data.examples import Example, PreferenceExample
from finetune_trainer.data.prompt_loss import tokenize_with_prompt
from finetune_trainer.data.tokenization import tokenize, tokenize_preference

Row = dict[str, list[int]]


class FormatError(ValueError):
    """An example of a format that the method does not train on."""


def columns(method: Method) -> tuple[str, ...]:
    """The names of the columns; each holds the tokens (or labels) of an example."""
    return ("prompt_ids", "chosen_ids", "rejected_ids") if method.type == "DPO" else ("input_ids", "labels")


def rows(method: Method, tokenizer: Any, example: Example, *, training: bool) -> Iterator[Row]:
    """The rows of an example, not truncated. Raises FormatError, or tokenization.TemplateError.

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
    for sequence in tokenize_with_prompt(tokenizer, example) if weighted else tokenize(tokenizer, example):
        yield {"input_ids": sequence.input_ids, "labels": sequence.labels}
