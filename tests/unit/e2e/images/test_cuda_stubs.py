"""The stubs that stand for CUDA's libraries in an image for CPU work."""

from __future__ import annotations

import ctypes
import importlib.util
import platform
import sys
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).parents[4] / "trainer-image" / "cuda_stubs.py"
SYMBOLS = {
    "cublasCreate_v2": "libcublas.so.13",
    "ncclAllReduce": "",
    "nvshmem_malloc": "NVSHMEM",
    "cublasGetStatusString": "libcublas.so.13",
    "ncclGetLastError": "",
}


@pytest.fixture(scope="module")
def cuda_stubs() -> ModuleType:
    spec = importlib.util.spec_from_file_location("cuda_stubs", SCRIPT)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def library(cuda_stubs: ModuleType, tmp_path: Path) -> ctypes.CDLL:
    if sys.platform != "linux":
        pytest.skip("the stubs are shared libraries of Linux")
    file = tmp_path / "libstubs.so"
    file.write_bytes(cuda_stubs.shared_library(SYMBOLS, platform.machine()))
    return ctypes.CDLL(str(file))


@pytest.mark.parametrize("name", ["cublasCreate_v2", "ncclAllReduce", "nvshmem_malloc"])
def test_a_function_fails_with_an_error(library: ctypes.CDLL, name: str) -> None:
    assert library[name]() == 1


@pytest.mark.parametrize("name", ["cublasGetStatusString", "ncclGetLastError"])
def test_a_function_that_explains_says_what_is_missing(cuda_stubs: ModuleType, library: ctypes.CDLL, name: str) -> None:
    function = library[name]
    function.restype = ctypes.c_char_p
    assert function() == cuda_stubs.MESSAGE.encode()


@pytest.mark.parametrize(
    ("name", "version", "found"),
    [
        ("cublasCreate_v2", b"libcublas.so.13", True),
        ("cublasCreate_v2", b"NVSHMEM", False),
        ("nvshmem_malloc", b"NVSHMEM", True),
    ],
)
def test_a_symbol_has_the_version_that_torch_asks_for(
    library: ctypes.CDLL, name: str, version: bytes, found: bool
) -> None:
    look_up = ctypes.CDLL(None).dlvsym
    look_up.restype = ctypes.c_void_p
    look_up.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_char_p]
    assert (look_up(library._handle, name.encode(), version) is not None) is found


def test_what_is_not_there_is_not_found(library: ctypes.CDLL) -> None:
    assert not hasattr(library, "cublasDestroy_v2")


def test_only_what_missing_cuda_libraries_would_define_is_stubbed(cuda_stubs: ModuleType) -> None:
    libraries = {
        "libtorch_cuda.so": cuda_stubs.Library(
            needs=["libcublas.so.13", "libcudart.so.13", "libnccl.so.2", "libcuda.so.1", "libc.so.6"],
            undefined=[
                ("cublasCreate_v2", "libcublas.so.13", "libcublas.so.13"),
                ("cudaMalloc", "libcudart.so.13", "libcudart.so.13"),
                ("malloc", "libc.so.6", "GLIBC_2.2.5"),
                ("ncclAllReduce", "", ""),
                ("cudaFree", "", ""),
                ("PyList_New", "", ""),
            ],
        ),
        "libcudart.so.13": cuda_stubs.Library(defined={"cudaMalloc", "cudaFree"}),
    }
    missing = cuda_stubs.find_missing(libraries)
    assert missing.libraries == {"libcublas.so.13", "libnccl.so.2"}
    assert missing.symbols == {"cublasCreate_v2": "libcublas.so.13", "ncclAllReduce": ""}
