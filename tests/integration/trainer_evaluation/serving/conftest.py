from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.trainer_evaluation.tiny_models import make_byte_level_tokenizer, save_model


@pytest.fixture(scope="session")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model that is served: with a tokenizer of the kind that most models have."""
    return save_model(tmp_path_factory.mktemp("served"), seed=2, tokenizer=make_byte_level_tokenizer())
