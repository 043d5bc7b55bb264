"""Doubtful examples: each kind in a small set, and nothing found where nothing is."""

from __future__ import annotations

import random
import string

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune_trainer.data.read.examples import ChatExample, CompletionExample, Example, PreferenceExample
from finetune_trainer.data.read.messages import Assistant, Function, ToolCall, User
from finetune_trainer.data.select.near_duplicates import Positions, Texts, near_duplicates, signature, similarity
from finetune_trainer.data.select.quality import NONE, ExampleIndex, find_issues, find_leaks

LONG = " ".join(f"word{number}" for number in range(100))


def pair(prompt: str, completion: str) -> CompletionExample:
    return CompletionExample(prompt, completion)


def remembered(examples: list[Example]) -> ExampleIndex:
    example_index = ExampleIndex()
    for example in examples:
        example_index.add(example)
    return example_index


def found(positions: Positions) -> dict[int, int]:
    """The doubtful positions, and what they are compared to."""
    return {int(position): int(positions[position]) for position in np.flatnonzero(positions != NONE)}


def alike(texts: list[str]) -> Positions:
    return near_duplicates(Texts(np.stack([signature(text) for text in texts]), np.arange(len(texts))))


def test_the_later_of_two_equal_examples_is_a_duplicate() -> None:
    issues = find_issues(remembered([pair("a", "1"), pair("b", "2"), pair("a", "1"), pair("a", "1")]))
    assert found(issues.duplicates) == {2: 0, 3: 0}
    assert found(issues.near_duplicates) == {}
    assert found(issues.conflicts) == {}


def test_a_changed_word_makes_a_near_duplicate() -> None:
    examples = [pair("first", "1"), pair("first", "1"), pair(LONG, "yes"), pair(LONG[::-1], "yes")]
    issues = find_issues(remembered([*examples, pair(LONG.replace("word50", "other"), "yes")]))
    assert found(issues.duplicates) == {1: 0}
    assert found(issues.near_duplicates) == {4: 2}


def test_of_a_chain_only_what_is_like_one_that_stays_is_a_near_duplicate() -> None:
    words = LONG.split()
    chain = [" ".join([*words[:kept], *(f"new{number}" for number in range(kept, 100))]) for kept in (100, 92, 84)]
    assert found(alike(chain)) == {1: 0}


def test_two_answers_to_one_prompt_are_a_conflict() -> None:
    examples: list[Example] = [pair("a", "1"), pair("a", "2"), pair("b", "1"), pair("a", "1")]
    assert found(find_issues(remembered(examples)).conflicts) == {0: 1, 1: 0, 3: 1}
    asked = User(content="2+2?")
    chats: list[Example] = [ChatExample([asked, Assistant(content=answer)]) for answer in ("4", "5")]
    assert found(find_issues(remembered(chats)).conflicts) == {0: 1, 1: 0}


def test_preferences_conflict_when_they_contradict_each_other() -> None:
    """Several pairs of one prompt are ordinary."""
    pairs: list[Example] = [
        PreferenceExample("a", "1", "2"),
        PreferenceExample("a", "1", "3"),
        PreferenceExample("a", "2", "1"),
    ]
    assert found(find_issues(remembered(pairs)).conflicts) == {0: 2, 2: 0}


def test_calls_are_compared_too() -> None:
    def calling(arguments: str) -> ChatExample:
        call = ToolCall(Function("search", arguments))
        return ChatExample([User(content="Look it up"), Assistant(tool_calls=[call])])

    issues = find_issues(remembered([calling('{"q": "weather in Paris"}'), calling('{"q": "trains to Rome"}')]))
    assert found(issues.near_duplicates) == {}
    assert found(issues.conflicts) == {0: 1, 1: 0}


def test_what_is_validated_on_must_not_be_trained_on() -> None:
    training = remembered([pair("a", "1"), pair(LONG, "yes"), pair("d", "4")])
    validation = remembered([pair("d", "4"), pair("c", "3"), pair(LONG + " more", "yes"), pair("a", "1")])
    assert found(find_leaks(training, validation, np.array([1, 2, 3]))) == {0: 3, 1: 2}
    assert found(find_leaks(training, validation, np.array([], dtype=np.int64))) == {}
    assert found(find_leaks(ExampleIndex(), validation, np.arange(4))) == {}


@pytest.mark.parametrize(
    "example",
    [
        pair("a", "1"),
        ChatExample([User(content="2+2?"), Assistant(content="4")]),
        PreferenceExample("a", "1", "2"),
        PreferenceExample([User(content="2+2?")], [Assistant(content="4")], [Assistant(content="5")]),
    ],
    ids=["pair", "chat", "texts", "messages"],
)
def test_every_format_can_be_compared(example: Example) -> None:
    assert found(find_issues(remembered([example, example])).duplicates) == {1: 0}


@given(st.text(string.ascii_lowercase + " ", min_size=1), st.text(string.punctuation, max_size=5))
def test_case_and_punctuation_make_no_difference(text: str, marks: str) -> None:
    assert similarity(signature(text), signature(text.upper() + marks.replace("_", ""))) == 1.0


def test_different_texts_are_not_taken_for_similar() -> None:
    chance = random.Random(17)
    texts = [" ".join(chance.choices(string.ascii_lowercase, k=60)) for _ in range(300)]
    assert found(alike(texts)) == {}


def test_nearly_all_of_a_thousand_similar_texts_are_found() -> None:
    texts = [f"{LONG} {number}" for number in range(1000)]  # 97 of 99 shingles in common
    assert len(found(alike(texts))) > 950


def test_the_estimate_is_near_the_truth() -> None:
    words = LONG.split()
    for common in (20, 50, 80):
        other = " ".join(words[:common] + [f"new{number}" for number in range(100 - common)])
        truth = (common - 2) / (98 * 2 - (common - 2))
        assert abs(similarity(signature(LONG), signature(other)) - truth) < 0.2
