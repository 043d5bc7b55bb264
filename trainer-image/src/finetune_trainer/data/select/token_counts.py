"""Tokenizes the chosen examples as training will: their numbers of tokens, those that are too long, and errors."""

from __future__ import annotations

from array import array
from collections.abc import Callable
from dataclasses import dataclass

from finetune_api.finetunejob import FileStatistics
from finetune_trainer.data.images.images import ImageStore
from finetune_trainer.data.select.filters import Mask
from finetune_trainer.data.select.survey import Survey
from finetune_trainer.data.select.tokenizing import ExampleTokenizer, tokenize_each
from finetune_trainer.methods.method import Row


@dataclass
class Counted:
    """The statistics of a set, and the number of tokens of each training row, in order."""

    statistics: FileStatistics
    lengths: array[int]


def count_and_check(
    survey: Survey,
    taken: Mask,
    tokenize: ExampleTokenizer,
    images: ImageStore,
    keep: Callable[[Row], None] = lambda row: None,
    processes: int = 1,
) -> Counted:
    """Count the chosen examples. With `too_long` Drop, those that are too long are removed from the mask.

    `keep` gets each row that training takes, in order. `processes`: how many tokenize.

    Errors of images and of the chat template, and examples without loss, are added to the survey.
    """
    examples = tokens = max_tokens = truncated = 0
    lengths = array("I")
    chosen = ((position, *found) for position, found in enumerate(survey.examples()) if taken[position])
    tokenized = tokenize_each(chosen, lambda found: found[2].example, tokenize, images, processes)
    for (position, file, item), found in tokenized:
        if found.error:
            survey.add_error(file.uri, item.line, found.error, of_model=found.of_model)
            continue
        if tokenize.is_dropped(found.longest):
            taken[position] = False
            continue
        if found.refusal:
            survey.add_error(file.uri, item.line, found.refusal)
            if tokenize.is_refused(found.longest):
                continue
        if found.spells_tokens:
            survey.note_control_text(position)
        for role in found.names_left_out:
            survey.unread.setdefault(f"name (of the role {role}; the model's chat template leaves it out)", item.line)
        lengths.extend(found.row_lengths)
        for row in found.rows:
            keep(row)
        truncated += found.longest > tokenize.max_length
        examples += 1
        tokens += found.tokens
        max_tokens = max(max_tokens, found.longest)
    counts = FileStatistics(
        examples=examples, tokens=tokens, max_tokens=max_tokens, truncated=truncated, rows=len(lengths)
    )
    return Counted(counts, lengths)
