"""Which prompts the samples of a report are made of."""

from __future__ import annotations

from typing import Any

import pytest

from finetune_api.finetunejob import DPO, SFT
from finetune_trainer.methods.dpo import DPOMethod
from finetune_trainer.methods.method import Question
from finetune_trainer.methods.samples import SAMPLES, find_questions, readable_prompt
from finetune_trainer.methods.sft import SFTMethod
from tests.integration.trainer_evaluation.tiny_models import make_tokenizer

NONE = -100
PROMPT_MARK = -1005
"""A label of a prompt that is learned too (methods/sft.py)."""


@pytest.mark.parametrize(
    ("row", "question"),
    [
        ({"input_ids": [1, 2, 3, 4], "labels": [NONE, NONE, 3, 4]}, Question([1, 2], [3, 4])),
        ({"input_ids": [1, 2, 3, 4, 5], "labels": [NONE, 2, NONE, 4, NONE]}, Question([1, 2, 3], [4])),
        ({"input_ids": [1, 2, 3], "labels": [PROMPT_MARK, PROMPT_MARK, 3]}, Question([1, 2], [3])),
        ({"input_ids": [1, 2], "labels": [1, 2]}, Question([], [1, 2])),
        ({"input_ids": [1, 2], "labels": [NONE, NONE]}, None),
        ({"prompt_ids": [1], "chosen_ids": [2], "rejected_ids": [3]}, Question([1], [2])),
    ],
    ids=["one answer", "the last of several", "loss on the prompt", "all is answer", "no answer", "preference"],
)
def test_the_prompt_is_what_stands_before_the_last_answer(row: Any, question: Question | None) -> None:
    method = DPOMethod(DPO()) if "prompt_ids" in row else SFTMethod(SFT())
    assert method.question(row) == question


def test_the_first_prompts_that_leave_room_are_taken() -> None:
    lengths = [3, 0, 9, *[2] * 10]
    rows = [{"prompt_ids": [1] * length, "chosen_ids": [2]} for length in lengths]
    assert [len(question.prompt) for question in find_questions(DPOMethod(DPO()), rows, room=5)] == [3, 2, 2, 2, 2][
        :SAMPLES
    ]


def test_a_prompt_is_shown_without_its_control_tokens() -> None:
    tokenizer = make_tokenizer()
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "2+2?\n\nNow!"}]
    tokens = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    assert readable_prompt(tokenizer, tokens) == "system\nBe brief.\nuser\n2+2?\n\nNow!\nassistant"
