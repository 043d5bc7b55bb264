"""Decodes tokens incrementally, as soon as no later token can change the text. Pure.

tokenizers' own DecodeStream does the same, but raises on invalid UTF-8, which a model may well sample.
"""

from __future__ import annotations

from typing import Any

UNKNOWN = "\N{REPLACEMENT CHARACTER}"
"""The placeholder for bytes that are not, or not yet, a character."""
MOST_WAITING = 64
"""Tokens. A longer run of bytes without a character is noise, and each further call would decode all of it again."""


class TextDecoder:
    """`backend`: the tokenizer of the tokenizers library."""

    def __init__(self, backend: Any) -> None:
        self._backend = backend
        self._before: list[int] = []
        """Tokens whose text was returned: decoders treat the first token of a text differently from later ones."""
        self._waiting: list[int] = []

    def step(self, token: int) -> str:
        """The text that this token completes."""
        self._waiting.append(token)
        text = self._new_text()
        if text.endswith(UNKNOWN) and len(self._waiting) < MOST_WAITING:
            return ""
        return self._out(text)

    def flush(self) -> str:
        """The text of the remaining, possibly incomplete tokens."""
        return self._out(self._new_text())

    def _new_text(self) -> str:
        before = self._backend.decode(self._before, skip_special_tokens=False)
        return str(self._backend.decode([*self._before, *self._waiting], skip_special_tokens=False)[len(before) :])

    def _out(self, text: str) -> str:
        if text:
            self._before, self._waiting = self._waiting, []
        return text
