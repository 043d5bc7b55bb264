"""Shows, while the CUDA image is built and without a GPU, that Triton and NCCL will find what they look for.

Triton builds a small extension of Python at the first step of a training; NCCL loads libibverbs to use InfiniBand.
"""

from __future__ import annotations

import ctypes

from triton.runtime.build import compile_module_from_src

SOURCE = """
#include <Python.h>
static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, "smoke"};
PyMODINIT_FUNC PyInit_smoke(void) { return PyModule_Create(&definition); }
"""


def main() -> None:
    compile_module_from_src(SOURCE, "smoke")
    ctypes.CDLL("libibverbs.so.1")


if __name__ == "__main__":
    main()
