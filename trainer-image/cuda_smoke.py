"""Shows, while the CUDA image is built and without a GPU, that Triton and NCCL will find what they look for.

Triton builds a small extension of Python at the first step of a training; bitsandbytes and Liger are loaded when a run
needs them; NCCL loads libibverbs to use InfiniBand, and without the driver that this loads in turn it would use sockets
and say nothing.
"""

from __future__ import annotations

import ctypes
import importlib
from pathlib import Path

from triton.runtime.build import compile_module_from_src

SOURCE = """
#include <Python.h>
static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, "smoke"};
PyMODINIT_FUNC PyInit_smoke(void) { return PyModule_Create(&definition); }
"""
ON_GPUS = ("bitsandbytes", "liger_kernel.transformers")
"""Packages that an image for CPUs does not have."""
DRIVERS = "libibverbs/libmlx5-rdmav*.so"
"""Of Mellanox's adapters, below a folder of libraries: https://packages.debian.org/bookworm/ibverbs-providers."""
LIBRARIES = (Path("/usr/lib"), Path("/usr/lib64"))


def main() -> None:
    compile_module_from_src(SOURCE, "smoke")
    for package in ON_GPUS:
        importlib.import_module(package)
    ctypes.CDLL("libibverbs.so.1")
    drivers = [driver for folder in LIBRARIES for driver in folder.glob(f"**/{DRIVERS}")]
    if not drivers:
        raise SystemExit(f"there is no {DRIVERS} below {LIBRARIES[0]}: install ibverbs-providers")
    ctypes.CDLL(str(drivers[0]))


if __name__ == "__main__":
    main()
