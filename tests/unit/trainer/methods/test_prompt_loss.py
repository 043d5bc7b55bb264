"""Which tokens are the prompt's, and what each method trains on."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from finetune_api.finetunejob import SFT, Method
from finetune_trainer.data.encode.tokenization import IGNORED, PROMPT_MARK, add_prompt_loss, tokenize
from finetune_trainer.data.read.examples import ChatExample, CompletionExample, Example, PreferenceExample
from finetune_trainer.methods.method import FormatError, method_of
from tests.integration.trainer_evaluation.tiny_models import make_tokenizer

USER, ANSWER = {"role": "user", "content": "hi"}, {"role": "assistant", "content": "yo"}
UNHEARD = {"role": "assistant", "content": "no", "weight": 0}
PAIR = {"prompt": [USER], "chosen": [ANSWER], "rejected": [{"role": "assistant", "content": "eh"}]}
ASKED = "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"
WEIGHTED = Method(sft=SFT(prompt_loss_weight=0.1))


def chat(*messages: dict[str, Any]) -> ChatExample:
    return msgspec.convert({"messages": messages}, ChatExample)


def text_of(tokenizer: Any, tokens: list[int]) -> str:
    return str(tokenizer.decode(tokens))


@pytest.mark.parametrize(
    ("example", "prompt", "answer"),
    [
        (chat(USER, ANSWER), ASKED, "yo<|im_end|>"),
        (chat(USER, ANSWER, USER, ANSWER), f"{ASKED}\n{ASKED}", "yo<|im_end|>yo<|im_end|>"),
        (chat(USER, UNHEARD, USER, ANSWER), f"{ASKED}\n{ASKED}", "yo<|im_end|>"),
        (CompletionExample("one two ", "three"), "one two ", "three<|endoftext|>"),
    ],
    ids=["one turn", "two turns", "an answer of weight 0", "prompt and completion"],
)
def test_what_stands_before_the_last_answer_is_prompt_but_for_what_the_assistant_says(
    example: Example, prompt: str, answer: str
) -> None:
    tokenizer = make_tokenizer()
    (sequence,) = add_prompt_loss(tokenizer, example, tokenize(tokenizer, example))
    marked = [PROMPT_MARK - label for label in sequence.labels if label <= PROMPT_MARK]
    learned = [label for label in sequence.labels if label >= 0]
    assert (text_of(tokenizer, marked), text_of(tokenizer, learned)) == (prompt, answer)
    for token, label in zip(sequence.input_ids, sequence.labels, strict=True):
        assert label in (token, PROMPT_MARK - token, IGNORED)


def test_the_answers_are_those_of_training_without_the_prompt() -> None:
    tokenizer = make_tokenizer()
    example = chat(USER, UNHEARD, USER, ANSWER)
    (plain,) = sequences = tokenize(tokenizer, example)
    (marked,) = add_prompt_loss(tokenizer, example, sequences)
    assert plain.input_ids == marked.input_ids
    assert [label if label >= 0 else IGNORED for label in marked.labels] == plain.labels


@pytest.mark.parametrize(
    ("method", "training", "is_marked"),
    [(WEIGHTED, True, True), (WEIGHTED, False, False), (Method(sft=SFT()), True, False), (Method(), True, False)],
    ids=["weighted", "validation", "weight 0", "nothing said"],
)
def test_only_training_data_is_marked(method: Method, training: bool, is_marked: bool) -> None:
    (row,) = method_of(method).rows(make_tokenizer(), chat(USER, ANSWER), [], training=training)
    assert any(label <= PROMPT_MARK for label in row["labels"]) == is_marked


@pytest.mark.parametrize("method", [Method(), Method(type="DPO")], ids=["SFT", "DPO"])
def test_the_rows_have_the_columns_of_the_method(method: Method) -> None:
    example = msgspec.convert(PAIR, PreferenceExample) if method.type == "DPO" else chat(USER, ANSWER)
    (row,) = method_of(method).rows(make_tokenizer(), example, [], training=True)
    assert tuple(row) == tuple(method_of(method).columns(make_tokenizer()))


def test_a_pair_is_a_prompt_and_two_answers() -> None:
    tokenizer = make_tokenizer()
    (row,) = method_of(Method(type="DPO")).rows(tokenizer, msgspec.convert(PAIR, PreferenceExample), [], training=True)
    assert {name: text_of(tokenizer, tokens) for name, tokens in row.items()} == {
        "prompt_ids": ASKED,
        "chosen_ids": "yo<|im_end|>\n",
        "rejected_ids": "eh<|im_end|>\n",
    }


@pytest.mark.parametrize(
    ("method", "example"),
    [(Method(), msgspec.convert(PAIR, PreferenceExample)), (Method(type="DPO"), chat(USER, ANSWER))],
    ids=["pairs for SFT", "messages for DPO"],
)
def test_an_example_of_another_method_is_refused(method: Method, example: Example) -> None:
    with pytest.raises(FormatError, match=r"method\.type"):
        list(method_of(method).rows(make_tokenizer(), example, [], training=True))
