"""The tokens of a text, and where each stands in it.

Following every character through to the offsets of its tokens takes the tokenizers library a third of its time. A
byte-level tokenizer's tokens are spelled in bytes: where all of them together are the bytes of the text, these say
where each token stands. Where they are not (the text was normalized, or is not in a byte-level tokenizer), the library
is asked for its offsets.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from operator import sub
from typing import Any, TypeVar

T = TypeVar("T")

IN_NO_TEXT = 0xFF
"""A byte that UTF-8 does not have."""


@dataclass(frozen=True)
class PlacedTokens:
    """Token ids, and the characters from which and up to which each stands in the text."""

    ids: list[int]
    starts: Sequence[int]
    ends: Sequence[int]


def token_ids(tokenizer: Any, text: str, *, add_special_tokens: bool = False) -> list[int]:
    """The tokens of a text, as the tokenizer itself has them."""
    if not _is_the_librarys_own(tokenizer.__class__):
        return list(tokenizer(text, add_special_tokens=add_special_tokens)["input_ids"])
    backend = tokenizer.backend_tokenizer
    if backend.truncation is not None or backend.padding is not None or backend.encode_special_tokens:
        return list(tokenizer(text, add_special_tokens=add_special_tokens)["input_ids"])
    return list(backend.encode_batch_fast([text], add_special_tokens=add_special_tokens)[0].ids)


def placed_tokens(tokenizer: Any, text: str) -> PlacedTokens:
    """The tokens of a text without special ones around it, and where each stands."""
    if (spelling := _spelling(tokenizer)) is not None:
        found = spelling.place(token_ids(tokenizer, text), text)
        if found is not None:
            return found
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    offsets = list(encoded["offset_mapping"])
    return PlacedTokens(list(encoded["input_ids"]), [start for start, _ in offsets], [end for _, end in offsets])


class _PerToken(dict[int, T]):
    """What a function says of a token, by its id; it is asked once."""

    def __init__(self, of_token: Callable[[int], T]) -> None:
        self._of_token = of_token

    def __missing__(self, number: int) -> T:
        self[number] = found = self._of_token(number)
        return found


class _Spelling:
    """How a byte-level tokenizer spells its tokens."""

    def __init__(self, backend: Any) -> None:
        added: dict[int, str] = {number: token.content for number, token in backend.get_added_tokens_decoder().items()}

        def spelled(number: int) -> bytes:
            if number in added:
                return added[number].encode()
            return bytes(_byte_of().get(character, IN_NO_TEXT) for character in backend.id_to_token(number))

        self.bytes: _PerToken[bytes] = _PerToken(spelled)
        self.begun: _PerToken[int] = _PerToken(
            lambda number: sum(not _is_continuation(byte) for byte in self.bytes[number])
        )
        """How many characters begin in a token."""
        self.continued: _PerToken[int] = _PerToken(lambda number: sum(map(_is_continuation, self.bytes[number][:1])))
        """1 for a token that begins within a character, else 0."""

    def place(self, ids: list[int], text: str) -> PlacedTokens | None:
        """Where the tokens stand in a text; None if they don't spell it.

        A token with a part of a character has that character, as in the library's offsets.
        """
        if b"".join(map(self.bytes.__getitem__, ids)) != text.encode():
            return None
        ends = list(accumulate(map(self.begun.__getitem__, ids)))
        starts = [0, *ends[:-1]] if ends else []
        if not text.isascii():
            starts = list(map(sub, starts, map(self.continued.__getitem__, ids)))
        return PlacedTokens(ids, starts, ends)


def _is_continuation(byte: int) -> bool:
    """Whether a byte of UTF-8 is not a character's first."""
    return byte & 0xC0 == 0x80


_SPELLINGS: weakref.WeakKeyDictionary[Any, _Spelling | None] = weakref.WeakKeyDictionary()


def _spelling(tokenizer: Any) -> _Spelling | None:
    """None of a tokenizer whose tokens are not spelled in bytes, or whose offsets leave out white space."""
    if tokenizer not in _SPELLINGS:
        _SPELLINGS[tokenizer] = _Spelling(tokenizer.backend_tokenizer) if _spells_in_bytes(tokenizer) else None
    return _SPELLINGS[tokenizer]


def _spells_in_bytes(tokenizer: Any) -> bool:
    from tokenizers.decoders import ByteLevel

    if not _is_the_librarys_own(tokenizer.__class__) or not isinstance(tokenizer.backend_tokenizer.decoder, ByteLevel):
        return False
    before, after = tokenizer.backend_tokenizer.pre_tokenizer, tokenizer.backend_tokenizer.post_processor
    trims = after is not None and b'"trim_offsets":true' in after.__getstate__()
    return not trims and before is not None and b'"add_prefix_space":true' not in before.__getstate__()


@functools.cache
def _is_the_librarys_own(kind: type) -> bool:
    """Whether tokenizers of a class only pass texts on to the tokenizers library."""
    from transformers import PreTrainedTokenizerFast

    call = "__call__", "_encode_plus"
    return issubclass(kind, PreTrainedTokenizerFast) and all(
        getattr(kind, name) is getattr(PreTrainedTokenizerFast, name) for name in call
    )


@functools.cache
def _byte_of() -> dict[str, int]:
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    return {character: byte for byte, character in bytes_to_unicode().items()}
