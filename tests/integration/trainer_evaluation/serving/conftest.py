from __future__ import annotations

from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.integration.trainer_evaluation.tiny_models import PlainGeneration, make_byte_level_tokenizer, save_model


@pytest.fixture(scope="session")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model that is served: with a tokenizer of the kind that most models have."""
    return save_model(tmp_path_factory.mktemp("served"), seed=2, tokenizer=make_byte_level_tokenizer())


@pytest.fixture(scope="session")
def plain_tuned(tuned: Path) -> PlainGeneration:
    """One of its own: that of the folder above is made once in a session, of the model of whoever asks for it first."""
    return PlainGeneration(AutoModelForCausalLM.from_pretrained(tuned), AutoTokenizer.from_pretrained(tuned))
