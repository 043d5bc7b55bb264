"""Versions, checksums and archives of the cluster's commands."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest

from e2e.cluster.binaries import CONTROL_PLANE, NODE, PRODUCTS, checksum_of, unpacked, version
from e2e.cluster.machine.go_toolchain import parse_version

SUM = "0f1e2d3c"


@pytest.mark.parametrize(
    "listing",
    [
        pytest.param(SUM, id="dl.k8s.io: the bare sum"),
        pytest.param(f"{SUM}  helm.tar.gz\n", id="get.helm.sh: one line"),
        pytest.param(f"{SUM} *build/release/helm.tar.gz\n", id="CoreDNS: a path, and read as binary"),
        pytest.param(f"aaaa  other.tar.gz\n{SUM.upper()}  helm.tar.gz\n", id="etcd: many files"),
    ],
)
def test_the_checksum_of_a_file_is_found_in_every_form_of_listing(listing: str) -> None:
    assert checksum_of(listing, "helm.tar.gz") == SUM


def test_a_checksum_file_that_names_another_file_is_no_checksum() -> None:
    with pytest.raises(OSError, match=r"does not name helm\.tar\.gz"):
        checksum_of(f"{SUM}  other.tar.gz", "helm.tar.gz")


@pytest.mark.parametrize(
    ("text", "parsed"),
    [("go1.26.8 linux/amd64", (1, 26, 8)), ("1.26.0", (1, 26, 0)), ("go1.27rc1", (1, 27)), ("devel", ())],
)
def test_a_version_is_read_from_the_output_of_go(text: str, parsed: tuple[int, ...]) -> None:
    assert parse_version(text) == parsed


def test_every_command_has_one_product_and_every_product_a_pinned_version() -> None:
    made = [command for product in PRODUCTS for command in product.packages]
    assert len(made) == len(set(made))
    assert {*CONTROL_PLANE, *NODE, "helm", "kind"} <= set(made)
    assert all(version(product.name).startswith("v") for product in PRODUCTS)


def test_only_the_command_is_taken_from_an_archive(tmp_path: Path) -> None:
    (tmp_path / "etcd-v3").mkdir()
    for name in ("etcd", "etcdctl"):
        (tmp_path / "etcd-v3" / name).write_text(f"I am {name}")
    archive = tmp_path / ".etcd.download"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(tmp_path / "etcd-v3", "etcd-v3")
    assert unpacked(archive, "etcd").read_text() == "I am etcd"
    assert not archive.exists()


def test_an_archive_without_the_command(tmp_path: Path) -> None:
    archive = tmp_path / "empty.tgz"
    tarfile.open(archive, "w:gz").close()
    with pytest.raises(OSError, match="no etcd in the archive"):
        unpacked(archive, "etcd")
