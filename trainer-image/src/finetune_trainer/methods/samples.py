"""The report's samples: the model's answers to a few prompts before and after training.

Both are generated when training is over, so that a resumed attempt has them too: the model before training is the base
with its new adapter disabled, or else the model as it was fetched.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

import structlog

from finetune_api.evaluation import Generation
from finetune_trainer.data.encode.chat_template import reads_images, text_tokenizer
from finetune_trainer.generate.generation import Generator, context_length, generate, load_generator, stop_tokens
from finetune_trainer.methods.method import Method, Question
from finetune_trainer.model.loading import LocalModel
from finetune_trainer.process.failures import first_line
from finetune_trainer.report.report import Sample, Samples

LOOKED_AT = 1000
SAMPLES = 5
SAMPLE_TOKENS = 128
LONGEST_PROMPT = 512
MOST_SECONDS = 30.0
MOST_PARAMETERS_ON_CPU = 1_000_000_000
"""A larger model generates too few tokens in MOST_SECONDS."""

_log = structlog.get_logger()


def make_samples(method: Method, tuned: Any, processor: Any, local: LocalModel, sequences: Any) -> Samples:
    """Generate greedily, at most MOST_SECONDS before and as many after. `sequences`: SequenceSets. Never fails."""
    tokenizer = text_tokenizer(processor)
    dataset = sequences.training if sequences.validation is None else sequences.validation
    source = "training" if sequences.validation is None else "validation"
    if reads_images(processor):
        return Samples((), "None are made for examples with more than text.")
    room = min(LONGEST_PROMPT, context_length(tuned.config) * 3 // 4)
    questions = find_questions(method, dataset, room)
    size = sum(parameter.numel() for parameter in tuned.parameters())
    if not questions:
        return Samples((), f"No prompt of the {source} examples leaves room for an answer.")
    if next(tuned.parameters()).device.type == "cpu" and size > MOST_PARAMETERS_ON_CPU:
        return Samples((), f"None were made: {size:,} parameters are too many for this machine's CPU.")
    try:
        with _evaluating(tuned, tokenizer):
            after = _answers(tuned, tokenizer, questions)
            before = _answers_before(tuned, tokenizer, local, questions)
    except (RuntimeError, ValueError) as error:  # mostly too little memory left by the optimizer
        _log.warning(f"the report has no samples: {first_line(error)}")
        return Samples((), f"None could be made: {first_line(error)}")
    samples = tuple(
        Sample(
            readable_prompt(tokenizer, question.prompt), _text(tokenizer, question.reference), said_before, said_after
        )
        for question, said_before, said_after in zip(questions, before, after, strict=True)
    )
    return Samples(samples, f"The first {source} examples, generated greedily, at most {SAMPLE_TOKENS} tokens each.")


def find_questions(method: Method, dataset: Any, room: int) -> list[Question]:
    """Up to SAMPLES of the first LOOKED_AT rows of `dataset` whose prompt has at most `room` tokens."""
    found = (method.question(row) for row in islice(dataset, LOOKED_AT))
    fitting = (question for question in found if question is not None and 0 < len(question.prompt) <= room)
    return list(islice(fitting, SAMPLES))


def _answers(model: Any, tokenizer: Any, questions: Sequence[Question]) -> list[str]:
    return generate(
        Generator(model, tokenizer, tokenizer),
        [question.prompt for question in questions],
        Generation(max_tokens=SAMPLE_TOKENS, temperature=0.0),
    )


def _answers_before(tuned: Any, tokenizer: Any, local: LocalModel, questions: Sequence[Question]) -> list[str]:
    if local.adapter is None and hasattr(tuned, "disable_adapter"):
        with tuned.disable_adapter():
            return _answers(tuned, tokenizer, questions)
    base = load_generator(local)
    base.model.generation_config.max_time = MOST_SECONDS
    return _answers(base.model, tokenizer, questions)


@contextlib.contextmanager
def _evaluating(model: Any, tokenizer: Any) -> Iterator[None]:
    """Within this context the model has no dropout, and limits on what it generates."""
    training, generation = model.training, model.generation_config
    model.eval()
    model.generation_config = type(generation)(
        max_time=MOST_SECONDS,
        eos_token_id=stop_tokens(generation.eos_token_id, tokenizer),
        pad_token_id=tokenizer.pad_token_id,
    )
    try:
        yield
    finally:
        model.generation_config = generation
        model.train(training)


def readable_prompt(tokenizer: Any, tokens: Sequence[int]) -> str:
    """A prompt without its special tokens, with a line break in place of each run of them."""
    special = {token for token, added in tokenizer.added_tokens_decoder.items() if added.special}
    runs = itertools.groupby(tokens, key=special.__contains__)
    texts = (str(tokenizer.decode(list(run))).strip() for is_special, run in runs if not is_special)
    return "\n".join(text for text in texts if text)


def _text(tokenizer: Any, tokens: Sequence[int]) -> str:
    return str(tokenizer.decode(tokens, skip_special_tokens=True))
