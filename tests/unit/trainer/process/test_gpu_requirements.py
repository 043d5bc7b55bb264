"""A machine with a GPU that lacks what the first step needs says so at once, and says what."""

from __future__ import annotations

import sysconfig
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from finetune_api.conditions import Reason
from finetune_api.pod_contracts.run import ModelSource
from finetune_trainer.outputs.loaded_outputs import loaded_once
from finetune_trainer.process import gpu_requirements
from finetune_trainer.process.failures import DiagnosedError
from finetune_trainer.process.gpu_requirements import require_gpu_driver, require_gpu_toolchain
from finetune_trainer.serving.serve import serve


@pytest.fixture
def complete(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A GPU and all that it needs; the folder has the compiler and the headers."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(gpu_requirements, "_has_driver", lambda: True)
    monkeypatch.setattr(sysconfig, "get_paths", lambda _: {"include": str(tmp_path)})
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    (tmp_path / "gcc").touch(mode=0o755)
    (tmp_path / "Python.h").touch()
    return tmp_path


def test_a_complete_machine_is_taken(complete: Path) -> None:
    require_gpu_toolchain()


@pytest.mark.parametrize(
    ("part", "message"), [("gcc", r"no C compiler \(gcc\)\."), ("Python.h", "no Python.h in .*")], ids=str
)
def test_the_part_that_is_missing_is_named(complete: Path, part: str, message: str) -> None:
    (complete / part).unlink()
    with pytest.raises(DiagnosedError, match=message) as refused:
        require_gpu_toolchain()
    failure = refused.value.failure
    assert failure.reason is Reason.FAILED
    assert not failure.retryable
    assert failure.suggestion is not None and "ACCELERATOR=cuda" in failure.suggestion


def test_a_compiler_of_another_name_will_do(complete: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (complete / "gcc").rename(complete / "cc-13")
    monkeypatch.setenv("CC", str(complete / "cc-13"))
    require_gpu_toolchain()


def test_without_the_driver_it_is_named(complete: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_requirements, "_has_driver", lambda: False)
    with pytest.raises(DiagnosedError, match=r"no driver \(libcuda.so.1\)"):
        require_gpu_toolchain()


@pytest.fixture
def unusable(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A GPU whose driver is too old."""
    monkeypatch.setattr(gpu_requirements, "DEVICE", tmp_path)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(gpu_requirements, "_has_driver", lambda: True)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


@pytest.mark.parametrize("require", [require_gpu_toolchain, require_gpu_driver])
def test_a_gpu_that_torch_can_not_use_is_not_passed_over(
    unusable: None, monkeypatch: pytest.MonkeyPatch, require: Callable[[], None]
) -> None:
    with pytest.raises(DiagnosedError, match="There is a GPU, and torch can't use it") as refused:
        require()
    assert refused.value.failure.retryable
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    require()


def test_a_driver_that_is_mounted_where_nobody_looks_is_told_of(
    unusable: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu_requirements, "_has_driver", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    with pytest.raises(DiagnosedError, match=r"libcuda.so.1 is not found.*/usr/local/nvidia/lib64.*LD_LIBRARY_PATH"):
        require_gpu_driver()


def test_models_are_not_loaded_on_the_cpu_of_such_a_machine(unusable: None, tmp_path: Path) -> None:
    """Neither by evaluations and Datasets, which would fetch one first, nor by a server."""
    storage: Any = None
    with (
        loaded_once("tuned", ModelSource(uri="s3://models/tuned"), storage) as load,
        pytest.raises(DiagnosedError, match="torch can't use it"),
    ):
        load()
    with pytest.raises(DiagnosedError, match="torch can't use it"):
        serve(tmp_path / "tuned", "a")


def test_without_a_gpu_nothing_is_asked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(gpu_requirements, "DEVICE", tmp_path / "nvidiactl")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setenv("PATH", "")
    require_gpu_toolchain()
