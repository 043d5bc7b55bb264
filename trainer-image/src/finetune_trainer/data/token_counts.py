"""How many tokens the chosen examples have, as they will be trained."""

from __future__ import annotations

from typing import Any, Literal

from finetune_api.finetunejob import FileStatistics
from finetune_trainer.data import tokenization
from finetune_trainer.data.images import ImageError, ImageStore
from finetune_trainer.data.preparation import Mask
from finetune_trainer.data.survey import Survey
from finetune_trainer.data.vision import too_many_image_tokens, with_images

TooLong = Literal["Truncate", "Drop", "Fail"]


def count_tokens(
    survey: Survey, taken: Mask, tokenizer: Any, images: ImageStore, max_length: int, too_long: TooLong
) -> FileStatistics:
    """Counts of the examples that are taken. Those that are too long are taken out of the mask where that is asked for.

    Bad images, what the chat template refuses, and what nothing is left of, is added to the survey's errors.
    """
    examples = tokens = max_tokens = truncated = 0
    chosen = ((position, *found) for position, found in enumerate(survey.examples()) if taken[position])
    for (position, file, item), files in with_images(tokenizer, images, chosen, lambda found: found[2].example):
        try:
            sequences = tokenization.tokenize(tokenizer, item.example, files())
        except (tokenization.TemplateError, ImageError) as error:
            survey.add_error(file.uri, item.line, str(error))
            continue
        longest = max(len(sequence.input_ids) for sequence in sequences)
        if longest > max_length and too_long == "Drop":
            taken[position] = False
            continue
        if longest > max_length and too_long == "Fail":
            survey.add_error(
                file.uri, item.line, f"The example has {longest} tokens; {max_length} are the most (maxLength)."
            )
            continue
        images_end = max(sequence.images_end for sequence in sequences)
        if images_end > max_length:
            survey.add_error(file.uri, item.line, too_many_image_tokens(images_end, max_length))
        elif not any(tokenization.has_loss(sequence, max_length) for sequence in sequences):
            survey.add_error(
                file.uri,
                item.line,
                f"Nothing is left to learn from after {max_length} tokens (maxLength): shorten the prompt.",
            )
        truncated += longest > max_length
        examples += 1
        tokens += sum(len(sequence.input_ids) for sequence in sequences)
        max_tokens = max(max_tokens, longest)
    return FileStatistics(examples=examples, tokens=tokens, max_tokens=max_tokens, truncated=truncated)
