"""The process's environment, set before the libraries that read it are imported; and its SIGTERM."""

from __future__ import annotations

import logging
import os
import signal
import sys
import tempfile
from pathlib import Path
from types import FrameType

from finetune_trainer.process.cpu import available_cpus

EXIT_ON_SIGTERM = 143  # finetune_api.pod_contracts.outcome.EXIT_DISRUPTED, which is not imported for its weight

QUIET = {
    "DISABLE_KUBEFLOW_INTEGRATION": "TRUE",  # progress.py speaks its protocol
    "DO_NOT_TRACK": "1",
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TORCH_CPP_LOG_LEVEL": "ERROR",  # waiting for a peer's name to resolve is normal
    "TRANSFORMERS_VERBOSITY": "error",
}


def prepare(processes: int = 1) -> None:
    """Set defaults: no telemetry, writable caches, one thread per CPU."""
    scratch = Path(tempfile.gettempdir())
    defaults = {
        **QUIET,
        "HF_HOME": str(scratch / "huggingface"),
        "TORCHINDUCTOR_CACHE_DIR": str(scratch / "inductor"),
        "OMP_NUM_THREADS": str(max(1, available_cpus() // processes)),
        "OMP_WAIT_POLICY": "PASSIVE",  # threads that spin take the node's cores from other Pods
    }
    for name, value in defaults.items():
        os.environ.setdefault(name, value)
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # a CPU has no kernel of its own, which is normal


def prepare_laptop() -> None:
    """As `prepare`, but with the user's own caches."""
    os.environ.setdefault("HF_HOME", str(Path.home() / ".cache" / "huggingface"))
    prepare()


def exit_on_sigterm() -> None:
    """Exit at SIGTERM, which the first process of a container would ignore otherwise."""
    signal.signal(signal.SIGTERM, _exit)


def end_well_on_sigterm() -> None:
    """As `exit_on_sigterm`, for a server: SIGTERM is how it ends."""
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(0))


def end_at_once_on_sigterm() -> None:
    """As `end_well_on_sigterm`, without what Python does at its end.

    Python takes torch's modules apart for seconds, on a busy node for many, to free what ends with the process anyway.
    """
    signal.signal(signal.SIGTERM, lambda number, frame: _end_at_once())


def hide_torch() -> None:
    """Let transformers run as where torch is not installed: what is left of it is imported in 1.5 seconds."""
    sys.modules.setdefault("torch", None)  # type: ignore[arg-type]


def _end_at_once() -> None:
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(0)


def _exit(number: int, frame: FrameType | None) -> None:
    raise SystemExit(EXIT_ON_SIGTERM)
