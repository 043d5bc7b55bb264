"""What is doubtful about a dataset whose every line is valid, and what is left out when that is asked for. Pure.

Memory is about 250 bytes an example, whatever its length.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec

from finetune_trainer.data.examples import (
    Assistant,
    ChatExample,
    CompletionExample,
    Example,
    Message,
    content_text,
    fingerprint,
    to_template,
)
from finetune_trainer.data.near_duplicates import Signature, near_duplicates, signature


@dataclass(frozen=True)
class Traits:
    """What is remembered of an example."""

    fingerprint: bytes
    """Of the whole example."""
    prompt: bytes
    """Of what is asked."""
    signature: Signature
    """Of its text, for near duplicates."""


@dataclass(frozen=True)
class Doubts:
    """Positions of doubtful examples in the training set, each with the position that it is compared to."""

    duplicates: Mapping[int, int]
    """The same as an earlier one."""
    near_duplicates: Mapping[int, int]
    """Almost the same as an earlier one, and not the same."""
    conflicts: Mapping[int, int]
    """The same prompt as another one's, with another answer."""
    leaks: Mapping[int, int]
    """The same as, or almost the same as, an example of the validation set (its position there)."""


def traits(example: Example) -> Traits:
    """What to remember of an example."""
    asked, text = _asked_and_text(example)
    return Traits(fingerprint(example), _digest(asked), signature(text))


def find_doubts(training: Sequence[Traits], validation: Sequence[Traits]) -> Doubts:
    """Compare every example of the training set with the others and with the validation set."""
    duplicates = _repeated([item.fingerprint for item in training])
    unique = [position for position in range(len(training)) if position not in duplicates]
    similar = near_duplicates([training[position].signature for position in unique])
    return Doubts(
        duplicates=duplicates,
        near_duplicates={unique[position]: unique[earlier] for position, earlier in similar.items()},
        conflicts=_conflicts(training),
        leaks=_leaks(training, validation),
    )


def _repeated(fingerprints: Sequence[bytes]) -> dict[int, int]:
    first: dict[bytes, int] = {}
    found = {}
    for position, item in enumerate(fingerprints):
        earlier = first.setdefault(item, position)
        if earlier != position:
            found[position] = earlier
    return found


def _conflicts(training: Sequence[Traits]) -> dict[int, int]:
    """All examples of a prompt that has several answers; the answers can't all be learned."""
    by_prompt: defaultdict[bytes, dict[bytes, int]] = defaultdict(dict)
    for position, item in enumerate(training):
        by_prompt[item.prompt].setdefault(item.fingerprint, position)
    found = {}
    for position, item in enumerate(training):
        answers = by_prompt[item.prompt]
        if len(answers) > 1:
            found[position] = next(other for key, other in answers.items() if key != item.fingerprint)
    return found


def _leaks(training: Sequence[Traits], validation: Sequence[Traits]) -> dict[int, int]:
    exact = {item.fingerprint: position for position, item in enumerate(validation)}
    found = {position: exact[item.fingerprint] for position, item in enumerate(training) if item.fingerprint in exact}
    count = len(validation)
    similar = near_duplicates([item.signature for item in (*validation, *training)])
    for position, earlier in similar.items():
        if position >= count and earlier < count:
            found.setdefault(position - count, earlier)
    return found


def _asked_and_text(example: Example) -> tuple[object, str]:
    """What is asked, and the whole text."""
    if isinstance(example, CompletionExample):
        return example.prompt, f"{example.prompt}\n{example.completion}"
    if isinstance(example, ChatExample):
        last = max(position for position, message in enumerate(example.messages) if isinstance(message, Assistant))
        return [to_template(example.messages[:last]), example.tools], _text(example.messages)
    if isinstance(example.prompt, str):
        return example.prompt, f"{example.prompt}\n{example.chosen}\n{example.rejected}"
    sides = [side for side in (example.prompt, example.chosen, example.rejected) if not isinstance(side, str)]
    return [to_template(example.prompt), example.tools], "\n".join(_text(side) for side in sides)


def _text(messages: Sequence[Message]) -> str:
    return "\n".join(content_text(getattr(message, "content", None)) for message in messages)


def _digest(value: object) -> bytes:
    return hashlib.blake2b(msgspec.json.encode(value, order="deterministic"), digest_size=16).digest()
