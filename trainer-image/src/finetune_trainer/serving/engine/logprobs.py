"""Log probabilities of tokens, as the model gave them: before penalties, constraints and the temperature."""

from __future__ import annotations

from typing import Any

import torch

from finetune_trainer.serving.engine.orders import TokenLogprob


def token_logprob(backend: Any, before: int, token: int, logprobs: torch.Tensor, alternatives: int) -> TokenLogprob:
    """Of a token and of the likeliest ones in its place. `logprobs`: of the vocabulary; `before`: the token before."""
    values, tokens = logprobs.topk(min(alternatives, len(logprobs)))
    top = tuple(
        TokenLogprob(token_text(backend, before, other), value)
        for value, other in zip(values.tolist(), tokens.tolist(), strict=True)
    )
    return TokenLogprob(token_text(backend, before, token), float(logprobs[token]), top)


def token_text(backend: Any, before: int, token: int) -> str:
    """The text of a token after another one: a decoder may treat the first token of a text differently."""
    prefix = backend.decode([before], skip_special_tokens=False)
    return str(backend.decode([before, token], skip_special_tokens=False)[len(prefix) :])
