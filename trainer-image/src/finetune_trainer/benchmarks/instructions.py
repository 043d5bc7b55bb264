"""ifeval: instructions that lm-eval checks an output by, such as "no commas" or "at least 300 words"."""

from __future__ import annotations

from typing import Any


def check_instructions(task: Any) -> None:
    """Raise an error about the first instruction that lm-eval can't check, before a model has answered any.

    The language of an output is guessed alike in every Pod.
    """
    from langdetect import DetectorFactory
    from lm_eval.tasks.ifeval.instructions_registry import INSTRUCTION_DICT

    DetectorFactory.seed = 0
    for doc in task.eval_docs:
        instructions, settings = doc["instruction_id_list"], doc["kwargs"]
        unknown = [name for name in instructions if name not in INSTRUCTION_DICT]
        if unknown:
            raise ValueError(f"the instruction {unknown[0]!r} is unknown to lm-eval")
        for name, given in zip(instructions, settings, strict=True):
            INSTRUCTION_DICT[name](name).build_description(**{key: value for key, value in given.items() if value})
