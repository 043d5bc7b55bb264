"""A loaded model as lm-eval asks it: in batches, with the answers of earlier tries."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from lm_eval.models.huggingface import HFLM

from finetune_trainer.benchmarks.kept import Answer, KeptAnswers, digest_of
from finetune_trainer.generate.generation import Generator

AT_ONCE = 256
"""Requests between two looks at what is to be saved; within them, those of one length share a batch."""
BATCH_ON_GPU, BATCH_ON_CPU = 16, 8
"""At first; it is halved where the accelerator's memory is too small for the longest prompts."""


MOST_NEW_TOKENS = 256
"""lm-eval's own limit of an output, unless the benchmark has another."""
OnAnswers = Callable[[int, int, bool], None]
"""Called with the number of requests that were answered, with that of all, and whether an earlier try had them."""


class AskedModel(HFLM):
    """lm-eval's model class upon a model that is loaded already."""

    def __init__(
        self, generator: Generator, kept: KeptAnswers, on_answers: OnAnswers, max_tokens: int | None = None
    ) -> None:
        super().__init__(
            pretrained=generator.model,
            tokenizer=generator.tokenizer,
            backend="causal",
            max_length=generator.context_length,
            batch_size=BATCH_ON_GPU if torch.cuda.is_available() else BATCH_ON_CPU,
            trust_remote_code=False,
        )
        self._kept = kept
        self._earlier = kept.answers()
        self._on_answers = on_answers
        self._most_new = min(MOST_NEW_TOKENS if max_tokens is None else max_tokens, int(self.max_length) // 2)
        self.truncated = 0
        """Prompts of which the beginning was left out, because they are longer than the model's context."""
        self.cut = 0
        """Outputs of as many tokens as are allowed, by their text: no stop ended them."""

    def loglikelihood(self, requests: list[Any], disable_tqdm: bool = True) -> list[Any]:
        """The log-probability of each continuation."""
        # The last token is only predicted.
        self._count_prompts(("".join(request.args[:2]) for request in requests), self.max_length + 1)
        return self._answer(requests, super().loglikelihood)

    def generate_until(self, requests: list[Any], disable_tqdm: bool = True) -> list[Any]:
        """The output for each prompt."""
        limit = self.max_gen_toks
        self._count_prompts((request.args[0] for request in requests), self.max_length - limit)
        answers = self._answer(requests, super().generate_until)
        lengths = (len(self.tok_encode(str(answer), add_special_tokens=False)) for answer in answers)
        self.cut += sum(length >= limit for length in lengths)
        return answers

    def _count_prompts(self, prompts: Iterable[str], room: int) -> None:
        """Of all requests, whichever try answers them and however often."""
        self.truncated += sum(len(self.tok_encode(prompt)) > room for prompt in prompts)

    @property
    def max_gen_toks(self) -> int:
        """The limit of an output; at most half of the context."""
        return self._most_new

    def _answer(self, requests: Sequence[Any], ask: Callable[..., list[Any]]) -> list[Answer]:
        """The answers in the order of the requests: those of earlier tries, and of the others."""
        keys = [digest_of(request.args) for request in requests]
        found = {key: self._earlier[key] for key in keys if key in self._earlier}
        self._on_answers(sum(key in found for key in keys), len(keys), True)
        missing = [at for at, key in enumerate(keys) if key not in found]
        # The longest first, so that memory that is too small is noticed at once, and lengths in a batch are alike.
        missing.sort(key=lambda at: -len(str(requests[at].args[0])))
        for start in range(0, len(missing), AT_ONCE):
            part = missing[start : start + AT_ONCE]
            answers = self._within_memory(ask, [requests[at] for at in part])
            new = {keys[at]: answer for at, answer in zip(part, answers, strict=True)}
            found |= new
            self._kept.keep(new)
            self._on_answers(len(part), len(keys), False)
        return [found[key] for key in keys]

    def _within_memory(self, ask: Callable[..., list[Answer]], requests: list[Any]) -> list[Answer]:
        """With smaller batches, if the accelerator has too little memory; with one prompt it fails."""
        while True:
            try:
                with torch.inference_mode():
                    return ask(requests, disable_tqdm=True)
            except torch.OutOfMemoryError:
                if self.batch_size_per_gpu == 1:
                    raise
                self.batch_size_per_gpu //= 2
            torch.cuda.empty_cache()
