"""The commands a cluster is made of: downloaded where that works, else built, and kept by version.

Versions are those of go/go.mod, whether a command is downloaded or built.
"""

from __future__ import annotations

import functools
import hashlib
import http.client
import os
import platform
import re
import shutil
import socket
import sys
import tarfile
import threading
import urllib.request
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from e2e.cache import cache_dir
from e2e.cluster.locks import exclusive
from e2e.cluster.machine.go_toolchain import go, parse_version
from e2e.steps import Step, console, step

MODULE = Path(__file__).parent / "go"

CONTROL_PLANE = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubectl")
NODE = ("kubelet", "kube-proxy", "coredns")

CONNECT_SECONDS = 3.0
DOWNLOAD_SECONDS = 60.0
BUILD_SECONDS = 3600.0
"""Nine minutes of CPU time per core on two cores; beside other work it has taken more than half an hour."""

WAIT_SECONDS = 2 * BUILD_SECONDS
"""For another run, which may first build other commands."""


@dataclass(frozen=True)
class Product:
    """Commands that are released together.

    `module` is the Go module whose version in go.mod is the version. `download` is the official address of the
    archive or command for Linux, `checksum` that of its SHA-256 (a file of one sum, or of lines `<sum>  <file>`);
    both may name {version}, {number} (the version without its v), {arch} and {command}. A product without them is
    always built. `packages` gives each command's Go package.
    """

    name: str
    module: str
    packages: Mapping[str, str]
    download: str | None = None
    checksum: str | None = None


PRODUCTS = (
    Product(
        "kubernetes",
        "k8s.io/kubernetes",
        {command: f"k8s.io/kubernetes/cmd/{command}" for command in (*CONTROL_PLANE[1:], "kubelet", "kube-proxy")},
        "https://dl.k8s.io/release/{version}/bin/linux/{arch}/{command}",
        "https://dl.k8s.io/release/{version}/bin/linux/{arch}/{command}.sha256",
    ),
    Product(
        "etcd",
        "go.etcd.io/etcd/server/v3",
        {"etcd": "go.etcd.io/etcd/server/v3"},
        "https://github.com/etcd-io/etcd/releases/download/{version}/etcd-{version}-linux-{arch}.tar.gz",
        "https://github.com/etcd-io/etcd/releases/download/{version}/SHA256SUMS",
    ),
    Product(
        "coredns",
        "github.com/coredns/coredns",
        {"coredns": "./coredns"},
        "https://github.com/coredns/coredns/releases/download/{version}/coredns_{number}_linux_{arch}.tgz",
        "https://github.com/coredns/coredns/releases/download/{version}/coredns_{number}_linux_{arch}.tgz.sha256",
    ),
    Product(
        "helm",
        "helm.sh/helm/v4",
        {"helm": "helm.sh/helm/v4/cmd/helm"},
        "https://get.helm.sh/helm-{version}-linux-{arch}.tar.gz",
        "https://get.helm.sh/helm-{version}-linux-{arch}.tar.gz.sha256sum",
    ),
    Product(
        "kind",
        "sigs.k8s.io/kind",
        {"kind": "sigs.k8s.io/kind"},
        "https://github.com/kubernetes-sigs/kind/releases/download/{version}/kind-linux-{arch}",
        "https://github.com/kubernetes-sigs/kind/releases/download/{version}/kind-linux-{arch}.sha256sum",
    ),
    Product("kwok", "sigs.k8s.io/kwok", {"kwok": "sigs.k8s.io/kwok/cmd/kwok"}),
)


def binaries(commands: Iterable[str]) -> dict[str, Path]:
    """The path of each of `commands`; what is not in the cache is downloaded or built first.

    Commands that are built in one call are built side by side, and each dependency once. Raises StepFailed.
    """
    paths = {command: _path(command) for command in commands}
    if all(path.exists() for path in paths.values()):
        return paths
    with exclusive(cache_dir() / "bin" / ".lock", timeout=WAIT_SECONDS):
        missing = {command: path for command, path in paths.items() if not path.exists()}
        to_build = [command for command in missing if not _downloaded(command)]
        if to_build:
            _build(to_build)
    return paths


def version(product: str) -> str:
    """The pinned version of a product, as in `v1.36.3`."""
    module = next(one.module for one in PRODUCTS if one.name == product)
    found = re.search(rf"^\s*{re.escape(module)} (v\S+)$", (MODULE / "go.mod").read_text(), re.MULTILINE)
    if not found:
        raise LookupError(f"{MODULE / 'go.mod'} requires no {module}")
    return found[1]


def _product(command: str) -> Product:
    return next(one for one in PRODUCTS if command in one.packages)


def _path(command: str) -> Path:
    name = _product(command).name
    return cache_dir() / "bin" / f"{name}-{version(name)}" / command


def _place(made: Path, command: str) -> None:
    """Put a finished command where it belongs; nobody ever sees half of one."""
    target = _path(command)
    target.parent.mkdir(parents=True, exist_ok=True)
    made.chmod(0o755)
    made.rename(target)


def _build(commands: list[str]) -> None:
    at_least = re.search(r"^go (\S+)$", (MODULE / "go.mod").read_text(), re.MULTILINE)
    toolchain = go(parse_version(at_least[1]) if at_least else ())
    output = cache_dir() / "bin" / ".building"
    kubernetes = version("kubernetes")
    major, minor, _ = kubernetes.removeprefix("v").split(".", 2)
    stamps = {"gitVersion": kubernetes, "gitMajor": major, "gitMinor": minor, "gitTreeState": "clean"}
    linker = [
        "-s",
        "-w",
        *(f"-X k8s.io/component-base/version.{key}={value}" for key, value in stamps.items()),
    ]
    scratch = output / "scratch"
    shutil.rmtree(output, ignore_errors=True)
    scratch.mkdir(parents=True)
    remedy = "if modules could not be fetched, set GOPROXY to a Go module proxy that this machine can reach"
    with step(f"Build {', '.join(commands)}", remedy=remedy) as building:
        # Without DWARF, and with a lazier collector in the compiler: 15 % less CPU time (measured on etcd).
        flags = ["-v", "-trimpath", "-buildvcs=false", "-mod=readonly", "-gcflags=all=-dwarf=false"]
        flags += [f"-ldflags={' '.join(linker)}", "-o", f"{output}{os.sep}"]
        building.run(
            [toolchain, "build", *flags, *(_product(command).packages[command] for command in commands)],
            cwd=MODULE,
            # In our own folder the files of a build that was killed are removed by the next one.
            env={"CGO_ENABLED": "0", "GOTOOLCHAIN": "local", "GOWORK": "off", "GOGC": "400", "GOTMPDIR": str(scratch)},
            timeout=BUILD_SECONDS,
        )
        for command in commands:
            # `go build` names the command of go.etcd.io/etcd/server/v3 after the module.
            _place(output / ("server" if command == "etcd" else command), command)


def _downloaded(command: str) -> bool:
    """Download one command and check its SHA-256; False where there is none to be had from here."""
    product = _product(command)
    arch = {"x86_64": "amd64", "aarch64": "arm64", "arm64": "arm64"}.get(platform.machine())
    if sys.platform != "linux" or arch is None or product.download is None or product.checksum is None:
        return False
    number = version(product.name).removeprefix("v")
    names = {"version": f"v{number}", "number": number, "arch": arch, "command": command}
    address, checksum = product.download.format(**names), product.checksum.format(**names)
    if not _answers(urlsplit(address).netloc):
        return False
    try:
        with step(f"Download {command} {version(product.name)}") as downloading:
            file = cache_dir() / "bin" / f".{command}.download"
            file.parent.mkdir(parents=True, exist_ok=True)
            expected = _published_sum(checksum, address.rsplit("/", 1)[1])
            actual = _fetch(address, file, downloading)
            if actual != expected:
                raise downloading.failure(f"{address} has SHA-256 {actual}, its publisher says {expected}")
            _place(unpacked(file, command) if address.endswith("gz") else file, command)
    except (OSError, http.client.HTTPException) as error:
        console.print(f"{address}: {error}; {command} is built instead.", markup=False)
        return False
    return True


@functools.cache
def _answers(host: str) -> bool:
    """Whether `host` takes a connection within CONNECT_SECONDS, the look-up of its name included."""
    connected = threading.Event()

    def connect() -> None:
        try:
            socket.create_connection((host, 443), timeout=CONNECT_SECONDS).close()
        except OSError:
            return
        connected.set()

    attempt = threading.Thread(target=connect, daemon=True)
    attempt.start()
    attempt.join(CONNECT_SECONDS)
    return connected.is_set()


def _published_sum(address: str, file: str) -> str:
    with urllib.request.urlopen(address, timeout=DOWNLOAD_SECONDS) as answer:
        return checksum_of(answer.read().decode(), file)


def checksum_of(listing: str, file: str) -> str:
    """The SHA-256 of `file` in a published checksum file: one bare sum, or lines of `<sum>  <file>`."""
    for line in listing.splitlines():
        words = line.split()
        if words and (len(words) == 1 or words[1].lstrip("*").rsplit("/", 1)[-1] == file):
            return words[0].lower()
    raise OSError(f"its checksum file does not name {file}")


def _fetch(address: str, file: Path, progress: Step) -> str:
    """Download to `file`; return the SHA-256."""
    digest, size = hashlib.sha256(), 0
    with urllib.request.urlopen(address, timeout=DOWNLOAD_SECONDS) as answer, file.open("wb") as output:
        while chunk := answer.read(1 << 20):
            digest.update(chunk)
            output.write(chunk)
            size += len(chunk)
            progress.say(f"{size >> 20} MiB")
    return digest.hexdigest()


def unpacked(archive: Path, command: str) -> Path:
    """Only the command's own file, wherever in the archive it lies."""
    target = archive.with_suffix(".unpacked")
    with tarfile.open(archive) as tar:
        found = [one for one in tar if one.isfile() and one.name.rsplit("/", 1)[-1] == command]
        content = tar.extractfile(found[0]) if found else None
        if content is None:
            raise FileNotFoundError(f"no {command} in the archive")
        with target.open("wb") as output:
            shutil.copyfileobj(content, output)
    archive.unlink()
    return target
