"""How the next token is chosen where little is left to choose from, and when it is chosen again."""

from __future__ import annotations

from typing import Any, cast

import pytest
import torch
from transformers import GenerationConfig

from finetune_trainer.serving.engine.constraints import Constraint
from finetune_trainer.serving.engine.orders import Order
from finetune_trainer.serving.engine.sampling import Sampler
from finetune_trainer.serving.schemas import SchemaError

CPU = torch.device("cpu")
VOCABULARY = 50


class Only:
    """A constraint that allows one token."""

    def apply(self, scores: torch.Tensor) -> torch.Tensor:
        return scores.masked_fill(torch.arange(scores.shape[-1]) != 3, -torch.inf)


@pytest.mark.parametrize("do_sample", [True, False])
def test_a_schema_whose_tokens_the_model_bans_says_so(do_sample: bool) -> None:
    config = GenerationConfig(do_sample=do_sample, suppress_tokens=[3])
    sampler = Sampler(config, Order([1], constraint=cast("Constraint", Only())), CPU)
    with pytest.raises(SchemaError, match="banned"):
        sampler.choose(torch.tensor([1]), torch.zeros(VOCABULARY))


def chosen(again: set[int]) -> list[int]:
    """Twenty tokens with a seed; some places are chosen again, as after a batch that failed."""
    sampler = Sampler(GenerationConfig(do_sample=True), Order([1], seed=7), CPU)
    tokens: Any = torch.tensor([1])
    for place in range(20):
        for _ in range(1 + (place in again)):
            token = sampler.choose(tokens, torch.zeros(VOCABULARY))
        tokens = torch.cat([tokens, token[None]])
    return list(tokens.tolist())


def test_a_token_that_is_chosen_again_is_the_same_one() -> None:
    assert len(set(chosen(set()))) > 5
    assert chosen({0, 4, 5}) == chosen(set())
