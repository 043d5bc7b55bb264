"""WordNet, which METEOR reads, from Debian's package."""

from __future__ import annotations

import pytest

from e2e.cluster.machine.packages import ensure_packages
from finetune_grading.wordnet import DEBIAN_DIRECTORY, DIRECTORY_VARIABLE


@pytest.fixture(scope="session")
def wordnet_files() -> str:
    """Their folder, on this machine or installed there."""
    ensure_packages(("wordnet-base",))
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv(DIRECTORY_VARIABLE, raising=False)
    return DEBIAN_DIRECTORY
