"""Log probabilities as OpenAI's objects, of either route."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

from finetune_trainer.serving.engine.orders import TokenLogprob
from finetune_trainer.serving.engine.text_decoder import UNKNOWN


def chat_logprobs(entries: Sequence[TokenLogprob]) -> dict[str, Any]:
    """`logprobs` of a choice of chat completions."""
    content = [{**_chat_entry(entry), "top_logprobs": [_chat_entry(one) for one in entry.top]} for entry in entries]
    return {"content": content, "refusal": None}


def completion_logprobs(entries: Sequence[TokenLogprob], offset: int) -> dict[str, Any]:
    """`logprobs` of a choice of completions. `offset`: the number of characters before the first token."""
    return {
        "tokens": [entry.token for entry in entries],
        "token_logprobs": [entry.logprob for entry in entries],
        "top_logprobs": [{one.token: one.logprob for one in entry.top} for entry in entries],
        "text_offset": list(accumulate((len(entry.token) for entry in entries[:-1]), initial=offset))[: len(entries)],
    }


def _chat_entry(entry: TokenLogprob) -> dict[str, Any]:
    known = None if UNKNOWN in entry.token else list(entry.token.encode())
    return {"token": entry.token, "logprob": entry.logprob, "bytes": known}
