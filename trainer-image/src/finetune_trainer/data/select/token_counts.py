"""Tokenizes the chosen examples as training will: their numbers of tokens, those that are too long, and errors."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from finetune_api.finetunejob import FileStatistics
from finetune_trainer.data.encode import tokenization
from finetune_trainer.data.encode.chat_template import TemplateError
from finetune_trainer.data.encode.dropped_content import names_left_out
from finetune_trainer.data.encode.vision import too_many_image_tokens, with_images
from finetune_trainer.data.images.images import ImageError, ImageStore
from finetune_trainer.data.read.examples import Example
from finetune_trainer.data.select.filters import Mask
from finetune_trainer.data.select.survey import Survey
from finetune_trainer.methods.method import FormatError, Method

TooLong = Literal["Truncate", "Drop", "Fail"]
Keep = Callable[[Example, Sequence[tokenization.TokenizedExample]], None]


@dataclass
class Counted:
    """The statistics of a set, and the number of tokens of each training row, in order."""

    statistics: FileStatistics
    lengths: array[int]


def count_and_check(
    survey: Survey,
    taken: Mask,
    method: Method,
    tokenizer: Any,
    images: ImageStore,
    max_length: int,
    too_long: TooLong,
    keep: Keep | None = None,
) -> Counted:
    """Count the chosen examples. With `too_long` Drop, those that are too long are removed from the mask.

    `keep` gets each example that is chosen, with its sequences.

    Errors of images and of the chat template, and examples without loss, are added to the survey.
    """
    examples = tokens = max_tokens = truncated = 0
    lengths = array("I")
    chosen = ((position, *found) for position, found in enumerate(survey.examples()) if taken[position])
    for (position, file, item), files in with_images(tokenizer, images, chosen, lambda found: found[2].example):
        try:
            sequences = method.tokenize(tokenizer, item.example, files())
        except TemplateError as error:
            survey.add_error(file.uri, item.line, str(error), of_model=True)
            continue
        except (FormatError, ImageError) as error:
            survey.add_error(file.uri, item.line, str(error))
            continue
        longest = max(sequence.length for sequence in sequences)
        if longest > max_length and too_long == "Drop":
            taken[position] = False
            continue
        if refusal := _refusal(method, sequences, max_length, too_long):
            survey.add_error(file.uri, item.line, refusal)
            if longest > max_length and too_long == "Fail":
                continue
        if any(sequence.spells_tokens for sequence in sequences):
            survey.note_control_text(position)
        for role in names_left_out(tokenizer, item.example):
            survey.unread.setdefault(f"name (of the role {role}; the model's chat template leaves it out)", item.line)
        lengths.extend(method.row_lengths(tokenizer, sequences, max_length))
        if keep is not None:
            keep(item.example, sequences)
        truncated += longest > max_length
        examples += 1
        tokens += sum(len(sequence.input_ids) for sequence in sequences)
        max_tokens = max(max_tokens, longest)
    counts = FileStatistics(
        examples=examples, tokens=tokens, max_tokens=max_tokens, truncated=truncated, rows=len(lengths)
    )
    return Counted(counts, lengths)


def _refusal(
    method: Method, sequences: Sequence[tokenization.TokenizedExample], max_length: int, too_long: TooLong
) -> str:
    """Why nothing can be learned from an example's tokens; empty if something can."""
    longest = max(sequence.length for sequence in sequences)
    if longest > max_length and too_long == "Fail":
        return f"The example has {longest} tokens; the maximum is {max_length} (maxLength)."
    images_end = max(sequence.images_end for sequence in sequences)
    if images_end > max_length:
        return too_many_image_tokens(images_end, max_length)
    return method.refusal(sequences, max_length)
