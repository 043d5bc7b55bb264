"""What builds and pushes images: Docker, or buildah where no Docker engine answers."""

from __future__ import annotations

import functools
import json
import os
import re
import sys
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from e2e.cache import cache_dir
from e2e.cluster.kind import docker_answers
from e2e.cluster.machine.commands import ask, run
from e2e.cluster.machine.packages import ensure_packages
from e2e.cluster.places import RUN
from e2e.steps import Step, StepFailed

BUILD_SECONDS = 3600.0
PUSH_SECONDS = 1800.0
PULL_SECONDS = 300.0

UV_CACHE = "/root/.cache/uv"
"""Where the Dockerfiles mount uv's cache."""


@dataclass(frozen=True)
class Recipe:
    """What one image is built from. `name` is its name here, without registry and tag."""

    name: str
    dockerfile: Path
    context: Path
    arguments: Mapping[str, str] = field(default_factory=dict)

    def options(self, environment: Mapping[str, str]) -> list[str]:
        """What Docker and buildah are told in the same words. The machine's CA bundle is lent, never copied."""
        arguments = [word for name, value in self.arguments.items() for word in ("--build-arg", f"{name}={value}")]
        bundle = environment.get("SSL_CERT_FILE", "")
        secret = ["--secret", f"id=ca,src={bundle}"] if bundle and Path(bundle).is_file() else []
        return ["--file", str(self.dockerfile), *arguments, *secret]


class Engine(Protocol):
    def has(self, image: str) -> bool:
        """Whether an image is here."""

    def pull(self, image: str) -> bool:
        """Bring an image here; False where it can't be had."""

    def build(self, current: Step, recipe: Recipe) -> None:
        """Build an image under its recipe's name. Raises StepFailed."""

    def push(self, current: Step, name: str, target: str) -> str:
        """Push a built image to `target` (registry, name and tag) and return its digest. Raises StepFailed."""

    def forget_all_but(self, names: Sequence[str]) -> None:
        """Remove images and layers that this engine built earlier, and that no image of `names` is made of."""


@functools.cache
def engine() -> Engine:
    """The engine of this machine; buildah is installed where it is missing. Raises StepFailed."""
    if docker_answers():
        return Docker()
    if sys.platform != "linux" or os.geteuid() != 0:
        raise StepFailed(
            "Images can't be built here: no Docker engine answers, and buildah needs root on Linux. "
            "What to do: start Docker, or run as root."
        )
    ensure_packages(("buildah",))
    return Buildah(cache_dir().resolve() / "buildah", RUN.with_name(f"{RUN.name}-buildah"))


class Docker:
    """A Docker engine, which builds with BuildKit."""

    def has(self, image: str) -> bool:
        return ask("docker", "image", "inspect", image) is not None

    def pull(self, image: str) -> bool:
        return ask("docker", "pull", "--quiet", image, timeout=PULL_SECONDS) is not None

    def build(self, current: Step, recipe: Recipe) -> None:
        command = ["docker", "build", "--progress", "plain", *recipe.options(os.environ), "--tag", recipe.name]
        current.run([*command, recipe.context], timeout=BUILD_SECONDS, env={"DOCKER_BUILDKIT": "1"})

    def push(self, current: Step, name: str, target: str) -> str:
        run("docker", "tag", name, target)
        current.run(["docker", "push", target], timeout=PUSH_SECONDS)
        repository = target.rpartition(":")[0]
        known: list[str] = json.loads(run("docker", "image", "inspect", "--format", "{{json .RepoDigests}}", target))
        return next(one for one in known if one.startswith(f"{repository}@")).partition("@")[2]

    def forget_all_but(self, names: Sequence[str]) -> None:
        """Docker's store is not ours alone and has rules of its own; we only remove what a newer build replaced."""
        for name in names:
            title = f"label=org.opencontainers.image.title={name}"
            ask("docker", "image", "prune", "--force", "--filter", title, timeout=PULL_SECONDS)


@dataclass
class Buildah:
    """buildah with a store of its own, so that nothing of the machine's is touched.

    `store` holds layers and is kept; `state` is for what must not outlive a boot.
    """

    store: Path
    state: Path
    _used: set[str] = field(default_factory=set)
    """Short ids of the layers that builds of this run made or took from the cache."""

    def has(self, image: str) -> bool:
        return ask(*self._buildah("inspect", "--type", "image", image)) is not None

    def pull(self, image: str) -> bool:
        return ask(*self._buildah("pull", "--quiet", image), timeout=PULL_SECONDS) is not None

    def build(self, current: Step, recipe: Recipe) -> None:
        # A chroot and the host's network: what also works on a machine that is itself a container.
        isolation = ["--isolation", "chroot", "--network", "host", "--layers", "--pull-never"]
        # uv's cache, so that packages are downloaded once for the machine and the images.
        volume = ["--volume", f"{uv_cache()}:{UV_CACHE}"]
        options = recipe.options(os.environ)
        before = current.log.stat().st_size
        command = self._buildah("bud", *isolation, *volume, *options, "--tag", f"localhost/{recipe.name}:latest")
        current.run([*command, recipe.context], timeout=BUILD_SECONDS)
        with current.log.open("rb") as log:
            log.seek(before)
            self._used |= layers_of(log.read().decode(errors="replace"))

    def push(self, current: Step, name: str, target: str) -> str:
        digest = self.state / "digest"
        # Of the ways to a registry and from there into containerd, zstd at its fastest took the least time in all.
        options: list[str | Path] = ["--compression-format=zstd", "--compression-level=1", "--digestfile", digest]
        if is_local(target):
            options.append("--tls-verify=false")
        command = self._buildah("push", *options, f"localhost/{name}:latest", f"docker://{target}")
        current.run(command, timeout=PUSH_SECONDS)
        return digest.read_text().strip()

    def forget_all_but(self, names: Sequence[str]) -> None:
        ask(*self._buildah("rm", "--all"))  # what a build that was killed worked in
        listing = run(*self._buildah("images", "--all", "--no-trunc", "--format", "{{.ID}} {{.Name}}:{{.Tag}}"))
        for image in unused_images(listing, names, self._used):
            # Newest first. One that another is made of stays, and is for the next time.
            ask(*self._buildah("rmi", image))

    def _buildah(self, *words: str | Path) -> list[str | Path]:
        self.state.mkdir(parents=True, exist_ok=True)
        return ["buildah", "--root", self.store, "--runroot", self.state, *words]


def uv_cache() -> Path:
    """The folder of uv's cache on this machine; made where it is missing."""
    folder = Path(run(sys.executable, "-m", "uv", "cache", "dir").strip())
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def is_local(target: str) -> bool:
    """Whether an image reference names a registry of this machine, which speaks plain HTTP."""
    return re.match(r"(localhost|127\.0\.0\.1)(:\d+)?/", target) is not None


def layers_of(log: str) -> set[str]:
    """The short ids of the layers that a log of `buildah bud` names: one line `--> ID` for each step."""
    return set(re.findall(r"^--> ([0-9a-f]{11})$", log, re.MULTILINE))


def unused_images(listing: str, names: Sequence[str], layers: Set[str]) -> list[str]:
    """The ids of images in a listing of `ID NAME:TAG` that have none of `names` and are none of `layers`.

    buildah completes names (`python:3` -> `docker.io/library/python:3`), so only their last parts are compared.
    """
    kept = {last if ":" in last else f"{last}:latest" for last in (name.rpartition("/")[2] for name in names)}
    lines = [line.removeprefix("sha256:").split() for line in listing.splitlines()]
    return [image for image, name in lines if name.rpartition("/")[2] not in kept and image[:11] not in layers]
