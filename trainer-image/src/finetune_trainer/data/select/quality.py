"""Quality issues of a valid dataset: duplicates, near duplicates, conflicting answers, leaks. Pure.

Memory is 48 bytes per example, whatever its length.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
from numpy.typing import NDArray

from finetune_trainer.data.read.examples import ChatExample, CompletionExample, Example, fingerprint
from finetune_trainer.data.read.messages import Assistant, Message, content_text, to_template
from finetune_trainer.data.select.near_duplicates import (
    ORDERS,
    Positions,
    Signatures,
    Texts,
    near_duplicates,
    signature,
    similar_pairs,
)

NONE = -1
"""In place of a position: the example has no counterpart."""


class ExampleIndex:
    """Hashes and signatures of the examples of a set, in order."""

    def __init__(self) -> None:
        self._fingerprints = array("Q")
        self._prompts = array("Q")
        self._signatures = array("B")

    def add(self, example: Example) -> None:
        """Append an example."""
        asked, text = _asked_and_text(example)
        self._fingerprints.append(int.from_bytes(fingerprint(example)[:8], "big"))
        self._prompts.append(int.from_bytes(_digest(asked), "big"))
        self._signatures.frombytes(signature(text).tobytes())

    def __len__(self) -> int:
        return len(self._fingerprints)

    @property
    def fingerprints(self) -> NDArray[np.uint64]:
        """Hashes of the whole examples, shape (examples,)."""
        return np.frombuffer(self._fingerprints, dtype=np.uint64)

    @property
    def prompts(self) -> NDArray[np.uint64]:
        """Hashes of the prompts, shape (examples,); of preference pairs together with the unordered answers."""
        return np.frombuffer(self._prompts, dtype=np.uint64)

    @property
    def signatures(self) -> Signatures:
        """MinHash signatures of the texts, shape (examples, ORDERS)."""
        return np.frombuffer(self._signatures, dtype=np.uint8).reshape(-1, ORDERS)


@dataclass(frozen=True)
class QualityIssues:
    """For each training example, the position of the one that it duplicates or contradicts, or NONE."""

    duplicates: Positions
    """It equals an earlier one."""
    near_duplicates: Positions
    """It is similar to an earlier one, but not equal."""
    conflicts: Positions
    """It has the prompt of another one, with another answer."""


def find_issues(training: ExampleIndex) -> QualityIssues:
    """Compare every example of the training set with the others."""
    duplicates = _repeated(training.fingerprints)
    unique = np.flatnonzero(duplicates == NONE)
    similar = near_duplicates(Texts(training.signatures, unique))
    near = np.full(len(training), NONE, dtype=np.int64)
    near[unique] = np.where(similar == NONE, NONE, unique[similar])
    return QualityIssues(duplicates, near, _conflicts(training.prompts, training.fingerprints))


def find_leaks(training: ExampleIndex, validation: ExampleIndex, held_out: Positions) -> Positions:
    """For each training example, the position of an equal or similar validation example, or NONE.

    `held_out`: the positions in `validation` that are evaluated on.
    """
    leaks = np.full(len(training), NONE, dtype=np.int64)
    count = len(held_out)
    if not count or not len(training):
        return leaks
    of_validation = Texts(validation.signatures, held_out)
    pairs = similar_pairs(of_validation, Texts(training.signatures, np.arange(len(training))))
    of_both = pairs[(pairs[:, 0] >= count) & (pairs[:, 1] < count)]
    leaks[of_both[::-1, 0] - count] = held_out[of_both[::-1, 1]]
    fingerprints, first = np.unique(validation.fingerprints[held_out], return_index=True)
    places = np.searchsorted(fingerprints, training.fingerprints).clip(max=len(fingerprints) - 1)
    same = fingerprints[places] == training.fingerprints
    leaks[same] = held_out[first[places[same]]]
    return leaks


def _repeated(fingerprints: NDArray[np.uint64]) -> Positions:
    _, first, inverse = np.unique(fingerprints, return_index=True, return_inverse=True)
    earlier: Positions = first[inverse]
    return np.where(earlier == np.arange(len(fingerprints)), NONE, earlier)


def _conflicts(prompts: NDArray[np.uint64], fingerprints: NDArray[np.uint64]) -> Positions:
    """For each example whose prompt has several answers, the position of one with another answer; else NONE."""
    found = np.full(len(prompts), NONE, dtype=np.int64)
    if not len(prompts):
        return found
    order = np.argsort(prompts, kind="stable")
    starts = np.flatnonzero(np.r_[True, prompts[order][1:] != prompts[order][:-1]])
    sizes = np.diff(np.r_[starts, len(order)])
    first = np.repeat(order[starts], sizes)
    differs = fingerprints[order] != fingerprints[first]
    beyond = len(order)
    others = np.minimum.reduceat(np.where(differs, order, beyond), starts)
    other = np.where(differs, first, np.repeat(others, sizes))
    found[order] = np.where(other == beyond, NONE, other)
    return found


def _asked_and_text(example: Example) -> tuple[object, str]:
    """The prompt, and the whole text."""
    if isinstance(example, CompletionExample):
        return example.prompt, f"{example.prompt}\n{example.completion}"
    if isinstance(example, ChatExample):
        last = max(position for position, message in enumerate(example.messages) if isinstance(message, Assistant))
        return [to_template(example.messages[:last]), example.tools], _text(example.messages)
    # Several pairs of one prompt do not conflict; the same pair with its answers swapped does.
    answers = sorted(_digest(_plain(side)) for side in (example.chosen, example.rejected))
    sides = (example.prompt, example.chosen, example.rejected)
    text = "\n".join(side if isinstance(side, str) else _text(side) for side in sides)
    return [_plain(example.prompt), example.tools, answers], text


def _plain(side: str | Sequence[Message]) -> object:
    return side if isinstance(side, str) else to_template(side)


def _text(messages: Sequence[Message]) -> str:
    """The text of the messages, tool calls with it."""
    return "\n".join(_message_text(message) for message in messages)


def _message_text(message: Message) -> str:
    text = content_text(getattr(message, "content", None))
    if isinstance(message, Assistant) and message.tool_calls is not None:
        return "\n".join([text, *(f"{call.function.name} {call.function.arguments}" for call in message.tool_calls)])
    return text


def _digest(value: object) -> bytes:
    return hashlib.blake2b(msgspec.json.encode(value, order="deterministic"), digest_size=8).digest()
