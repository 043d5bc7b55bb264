"""Preflight compares the tokenizer and packing with the model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from finetune_api.conditions import Reason
from finetune_api.default_hyperparameters import length_bound
from finetune_api.finetunejob import Hyperparameters
from tests.integration.trainer.preflight.tiny_kinds import check, refusal, save
from tests.integration.trainer_evaluation.tiny_models import make_tokenizer


def with_pad(tokenizer: Any) -> None:
    tokenizer.add_special_tokens({"pad_token": "[PAD]"})


def with_turns(tokenizer: Any) -> None:
    tokenizer.chat_template = tokenizer.chat_template.replace("im_start", "user_turn")
    tokenizer.add_tokens(["<|user_turn|>"], special_tokens=True)


def with_words(tokenizer: Any) -> None:
    tokenizer.add_tokens(["refund"])


def with_unused(tokenizer: Any) -> None:
    """As Gemma 3's smallest: a token for images, which a language model never gets."""
    tokenizer.add_tokens(["<image_soft_token>"], special_tokens=True)


@pytest.mark.parametrize(
    ("change", "shown"), [(with_pad, "'[PAD]'"), (with_turns, "'<|user_turn|>'"), (with_words, "'refund'")]
)
def test_tokens_beyond_the_embedding_are_refused(tmp_path: Path, change: Callable[[Any], None], shown: str) -> None:
    tokenizer = make_tokenizer()
    rows = len(tokenizer)
    change(tokenizer)
    folder = save(tmp_path / "model", tokenizer=tokenizer, vocab_size=rows)
    reason, message = refusal(folder, tmp_path / "scratch")
    assert reason is Reason.MODEL_INVALID
    assert f"{shown} ({rows})" in message
    assert f"only the tokens 0 to {rows - 1}" in message


def test_a_token_that_no_text_has_may_lie_beyond(tmp_path: Path) -> None:
    tokenizer = make_tokenizer()
    rows = len(tokenizer)
    with_unused(tokenizer)
    check(save(tmp_path / "model", tokenizer=tokenizer, vocab_size=rows), tmp_path / "scratch")


def test_a_tokenizer_that_knows_no_length_is_no_fact(tmp_path: Path) -> None:
    """Bloom has no longest sequence; its tokenizer says 1e30, which no int64 holds."""
    model = check(save(tmp_path / "model", "bloom"), tmp_path / "scratch")
    assert model.status.context_length is None
    assert length_bound(None, model.status.context_length) == 8192
    assert length_bound(16384, model.status.context_length) == 16384


def test_packing_is_refused_by_the_name_of_its_field(tmp_path: Path) -> None:
    folder = save(tmp_path / "model", "bloom")
    reason, message = refusal(folder, tmp_path / "scratch", hyperparameters=Hyperparameters(packing=True))
    assert reason is Reason.INVALID_SPEC
    assert message.startswith("hyperparameters.packing does not work with a BloomForCausalLM: ")
