"""What the server of forked processes imports at its start, and what its forks therefore share: see forked.py."""

from __future__ import annotations

import importlib
import os

from finetune_trainer.process.imports import gc_paused_for_imports
from tests.integration.forked import PRELOADED

with gc_paused_for_imports():
    for name in os.environ[PRELOADED].split():
        importlib.import_module(name)
