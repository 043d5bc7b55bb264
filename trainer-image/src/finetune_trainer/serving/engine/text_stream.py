"""The text of one output while its tokens are generated: up to the first stop string, and as soon as it is final. Pure.

A piece of text has the log probabilities of the tokens that complete it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from finetune_trainer.serving.engine.orders import Text, TokenLogprob
from finetune_trainer.serving.engine.stop_strings import StopStrings
from finetune_trainer.serving.engine.text_decoder import TextDecoder


class TextStream:
    """`backend`: the tokenizer of the tokenizers library. `special`: its special tokens. `emit` gets the pieces."""

    def __init__(
        self, backend: Any, special: frozenset[int], stop: Sequence[str], marks: str, emit: Callable[[Text], None]
    ) -> None:
        self._backend = backend
        self._special = special
        self._marks = marks
        self._emit = emit
        self._decoder = TextDecoder(backend)
        self._stop = StopStrings(stop)
        self._stopped = False
        self._characters = 0
        self._shown = 0
        self._unshown: deque[tuple[int, str]] = deque()
        """Special tokens, each with the number of characters of the output before it."""
        self._logprobs: list[TokenLogprob] = []
        """Of the tokens whose text was not yet emitted."""

    def put(self, token: int, logprob: TokenLogprob | None = None) -> bool:
        """Whether a stop string ended the output; nothing is to be put after that."""
        if token not in self._special:
            if logprob is not None:
                self._logprobs.append(logprob)
            self._read(self._decoder.step(token))
            return self._stopped
        mark = self._backend.id_to_token(token)
        if mark in self._marks and self.end():
            return True
        self._unshown.append((self._characters, mark))
        self._show("")
        return False

    def end(self) -> bool:
        """Emit what was held back, after the last token of the output or of a text. Whether a stop string ended it."""
        self._read(self._decoder.flush())
        if not self._stopped:
            self._show(self._stop.flush())
        return self._stopped

    def _read(self, text: str) -> None:
        self._characters += len(text)
        shown, self._stopped = self._stop.feed(text)
        self._show(shown)

    def _show(self, text: str) -> None:
        """Emit the next final text, with the special tokens up to its end."""
        while self._unshown and self._unshown[0][0] <= self._shown + len(text):
            position, mark = self._unshown.popleft()
            before, text = text[: position - self._shown], text[position - self._shown :]
            self._put(before)
            self._emit(Text(mark, special=True))
            self._shown = position
        self._put(text)
        self._shown += len(text)

    def _put(self, text: str) -> None:
        if text:
            logprobs, self._logprobs = tuple(self._logprobs), []
            self._emit(Text(text, logprobs=logprobs))
