"""Where everything that is made on this machine is kept between runs."""

from __future__ import annotations

import os
from pathlib import Path


def cache_dir() -> Path:
    """`$XDG_CACHE_HOME/finetune-operator` (default `~/.cache/finetune-operator`).

    One fixed place for all clones of the project, so that each finds what another one built or left running.
    """
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "finetune-operator"
