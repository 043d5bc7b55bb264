"""What a GPU needs in addition to torch; without it training would fail at its first step, minutes after the start, and
whatever else loads a model would compute on the CPU, a hundred times slower, and say nothing.

Triton, which compiles the kernels of the loss and of fused_kernels.py, builds a small extension of Python against the
driver when it is first used. https://github.com/triton-lang/triton, python/triton/runtime/build.py
"""

from __future__ import annotations

import ctypes
import os
import shutil
import sysconfig
from pathlib import Path

import torch

from finetune_api.conditions import Reason
from finetune_trainer.process.failures import DiagnosedError

DEVICE = Path("/dev/nvidiactl")
"""There wherever a GPU of NVIDIA's may be used."""
DRIVER = "libcuda.so.1"
GKE_DRIVER = "/usr/local/nvidia/lib64"
"""Where GKE mounts it."""


def require_gpu_toolchain() -> None:
    """Check what training needs on a GPU, if there is one. Raises DiagnosedError (Failed) naming what is missing."""
    require_gpu_driver()
    if not torch.cuda.is_available():
        return
    missing = [what for what, there in _parts().items() if not there]
    if missing:
        raise DiagnosedError(
            Reason.FAILED,
            f"Triton can't compile for the GPU here: there is no {' and no '.join(missing)}.",
            suggestion="Use the trainer image that is built with ACCELERATOR=cuda (trainer-image/Dockerfile), or "
            "install gcc, libc6-dev and python3-dev.",
        )


def require_gpu_driver() -> None:
    """Raises DiagnosedError (Failed) if there is a GPU and torch can't use it. Without a GPU the CPU computes."""
    if torch.cuda.is_available() or not DEVICE.exists() or os.environ.get("CUDA_VISIBLE_DEVICES") == "":
        return
    raise DiagnosedError(
        Reason.FAILED,
        f"There is a GPU, and torch can't use it: {_why_not()}",
        suggestion=f"Use a trainer image that is built with ACCELERATOR=cuda, on a node whose driver is new enough "
        f"for CUDA {torch.version.cuda}; or set CUDA_VISIBLE_DEVICES to nothing, to compute on the CPU.",
        retryable=True,  # another node may have another driver
    )


def _parts() -> dict[str, bool]:
    """Whether each part that Triton needs exists."""
    compilers = [os.environ.get("CC"), "gcc", "clang"]
    scheme = sysconfig.get_default_scheme()
    headers = sysconfig.get_paths("posix_prefix" if scheme == "posix_local" else scheme)["include"]
    return {
        "C compiler (gcc)": any(shutil.which(compiler) for compiler in compilers if compiler),
        f"Python.h in {headers}": (Path(headers) / "Python.h").exists(),
        f"driver ({DRIVER})": _has_driver(),
    }


def _has_driver() -> bool:
    try:
        ctypes.CDLL(DRIVER)
    except OSError:
        return False
    return True


def _why_not() -> str:
    if torch.version.cuda is not None and not _has_driver():
        return (
            f"the driver's {DRIVER} is not found. It is mounted by the node's container runtime, or on GKE at "
            f"{GKE_DRIVER}, which LD_LIBRARY_PATH must then name, as it does in the trainer image."
        )
    try:
        torch.cuda.init()
    except (RuntimeError, AssertionError) as error:
        return str(error).strip().splitlines()[0]
    return "no device is visible."
