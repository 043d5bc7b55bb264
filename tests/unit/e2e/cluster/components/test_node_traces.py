"""What the node changes on the machine is put back, and only what is ours is ended."""

from __future__ import annotations

from pathlib import Path

import pytest

from e2e.cluster.components import container_runtime
from e2e.cluster.components.container_runtime import SOCKET, is_shim
from e2e.cluster.machine.sysctls import CHANGED, allow_forwarding, restore_sysctls, save_sysctls

SHIM = "/usr/bin/containerd-shim-runc-v2"


@pytest.mark.parametrize(
    ("words", "ours"),
    [
        ([SHIM, "-namespace", "k8s.io", "-id", "1", "-address", str(SOCKET), ""], True),
        (
            [SHIM, "-namespace", "k8s.io", "-id", "1", "-address", "/run/containerd/containerd.sock", ""],
            False,
        ),
        (["ctr", "--address", str(SOCKET), ""], False),
        ([""], False),
    ],
)
def test_only_shims_of_our_containerd_are_killed(words: list[str], ours: bool) -> None:
    assert is_shim(words) is ours


def test_kernel_settings_come_back(tmp_path: Path) -> None:
    root = tmp_path / "sys"
    for name in CHANGED:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("0\n")
    save_sysctls(tmp_path / "saved.json", root)
    allow_forwarding(root)
    assert (root / "net/ipv4/ip_forward").read_text() == "1"
    restore_sysctls(tmp_path / "saved.json", root)
    assert {name: (root / name).read_text().strip() for name in CHANGED} == dict.fromkeys(CHANGED, "0")


def test_without_saved_kernel_settings_none_are_restored(tmp_path: Path) -> None:
    restore_sysctls(tmp_path / "missing.json", tmp_path)


def test_only_our_pods_network_records_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = ["finetune-operator-1a2b-eth0", "cni-loopback-1a2b-lo"]
    others = ["kubenet-3c4d-eth0", "cni-loopback-3c4d-lo"]
    for name in [*ours, *others]:
        (tmp_path / name).touch()
    monkeypatch.setattr(container_runtime, "CNI_RESULTS", tmp_path)
    monkeypatch.setattr(container_runtime, "STATE", tmp_path / "state")
    container_runtime.remove_outside_files()
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(others)
