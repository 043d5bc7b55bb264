"""What the build of the CUDA image tries: Triton's compiling of an extension, and NCCL's library for InfiniBand."""

from __future__ import annotations

import ctypes
import importlib.util
import subprocess
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).parents[4] / "trainer-image" / "cuda_smoke.py"


@pytest.fixture
def cuda_smoke(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    pytest.importorskip("triton")
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    spec = importlib.util.spec_from_file_location("cuda_smoke", SCRIPT)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_machine_with_compiler_headers_and_libibverbs_passes(
    cuda_smoke: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The libraries of the image, which the machine of this test may lack, are played by an empty file."""
    monkeypatch.setattr(cuda_smoke, "ON_GPUS", ("json",))  # torch, which they import, opens libraries of its own
    asked: list[str] = []
    monkeypatch.setattr(ctypes, "CDLL", asked.append)
    monkeypatch.setattr(cuda_smoke, "LIBRARIES", (tmp_path,))
    with pytest.raises(SystemExit, match="install ibverbs-providers"):
        cuda_smoke.main()
    driver = tmp_path / "x86_64-linux-gnu" / "libibverbs" / "libmlx5-rdmav34.so"
    driver.parent.mkdir(parents=True)
    driver.touch()
    asked.clear()
    cuda_smoke.main()
    assert asked == ["libibverbs.so.1", str(driver)]


def test_without_the_headers_it_fails(cuda_smoke: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("sysconfig.get_paths", lambda **_: {"include": str(tmp_path / "no-headers")})
    with pytest.raises(subprocess.CalledProcessError):
        cuda_smoke.main()
