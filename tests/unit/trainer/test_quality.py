"""Doubtful examples: each kind in a small set, and nothing found where nothing is."""

from __future__ import annotations

import random
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune_trainer.data.examples import Assistant, ChatExample, CompletionExample, Example, PreferenceExample, User
from finetune_trainer.data.near_duplicates import near_duplicates, signature, similarity
from finetune_trainer.data.quality import Doubts, find_doubts, traits

LONG = " ".join(f"word{number}" for number in range(100))


def pair(prompt: str, completion: str) -> CompletionExample:
    return CompletionExample(prompt, completion)


def doubts(training: list[Example], validation: list[Example] | None = None) -> Doubts:
    return find_doubts([traits(one) for one in training], [traits(one) for one in validation or []])


def test_the_later_of_two_equal_examples_is_a_duplicate() -> None:
    found = doubts([pair("a", "1"), pair("b", "2"), pair("a", "1"), pair("a", "1")])
    assert found.duplicates == {2: 0, 3: 0}
    assert found.near_duplicates == {}
    assert found.conflicts == {}


def test_a_changed_word_makes_a_near_duplicate() -> None:
    found = doubts([pair(LONG, "yes"), pair(LONG.replace("word50", "other"), "yes"), pair(LONG[::-1], "yes")])
    assert found.duplicates == {}
    assert found.near_duplicates == {1: 0}


def test_two_answers_to_one_prompt_are_a_conflict() -> None:
    found = doubts([pair("a", "1"), pair("a", "2"), pair("b", "1"), pair("a", "1")])
    assert found.conflicts == {0: 1, 1: 0, 3: 1}
    asked = User(content="2+2?")
    chats: list[Example] = [ChatExample([asked, Assistant(content=answer)]) for answer in ("4", "5")]
    assert doubts(chats).conflicts == {0: 1, 1: 0}


def test_what_is_validated_on_must_not_be_trained_on() -> None:
    found = doubts([pair("a", "1"), pair(LONG, "yes")], [pair("c", "3"), pair(LONG + " more", "yes"), pair("a", "1")])
    assert found.leaks == {0: 2, 1: 1}


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
    assert doubts([example, example]).duplicates == {1: 0}


@given(st.text(string.ascii_lowercase + " ", min_size=1), st.text(string.punctuation, max_size=5))
def test_case_and_punctuation_make_no_difference(text: str, marks: str) -> None:
    assert similarity(signature(text), signature(text.upper() + marks.replace("_", ""))) == 1.0


def test_different_texts_are_not_taken_for_similar() -> None:
    chance = random.Random(17)
    texts = [" ".join(chance.choices(string.ascii_lowercase, k=60)) for _ in range(300)]
    assert near_duplicates([signature(text) for text in texts]) == {}


def test_nearly_all_of_a_thousand_similar_texts_are_found() -> None:
    texts = [f"{LONG} {number}" for number in range(1000)]  # 97 of 99 shingles in common
    assert len(near_duplicates([signature(text) for text in texts])) > 950


def test_the_estimate_is_near_the_truth() -> None:
    words = LONG.split()
    for common in (20, 50, 80):
        other = " ".join(words[:common] + [f"new{number}" for number in range(100 - common)])
        truth = (common - 2) / (98 * 2 - (common - 2))
        assert abs(similarity(signature(LONG), signature(other)) - truth) < 0.2
