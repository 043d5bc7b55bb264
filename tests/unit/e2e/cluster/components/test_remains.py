"""What `make cluster-down` leaves outside the cache."""

from __future__ import annotations

from pathlib import Path

import pytest

from e2e.cluster.components import container_runtime


@pytest.mark.parametrize("another", [False, True], ids=["only ours", "somebody else's network too"])
def test_the_results_of_our_network_go_and_an_empty_folder_with_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, another: bool
) -> None:
    results = tmp_path / "results"
    results.mkdir()
    (results / f"{container_runtime.NETWORK}-pod-eth0").touch()
    (results / "cni-loopback-pod-lo").touch()
    if another:
        (results / "another-pod-eth0").touch()
    monkeypatch.setattr(container_runtime, "CNI_RESULTS", results)
    monkeypatch.setattr(container_runtime, "STATE", tmp_path / "state")
    container_runtime.remove_outside_files()
    assert results.exists() == another
    assert not another or [file.name for file in results.iterdir()] == ["another-pod-eth0"]
