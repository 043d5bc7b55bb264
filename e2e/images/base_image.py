"""What our images are built on: Python's official image, or, where that can't be had, a small Debian made here."""

from __future__ import annotations

import datetime
import hashlib
import platform
import shutil
from pathlib import Path

from e2e.cache import cache_dir
from e2e.cluster.machine.commands import ask, run
from e2e.cluster.machine.packages import ensure_packages
from e2e.images.engines import Engine, Recipe
from e2e.steps import StepFailed, step

OFFICIAL = "python:3.11-slim-bookworm"
"""Also the default of the Dockerfiles."""

LOCAL = "finetune-base"
MAKE_SECONDS = 900.0
TARGETS_FORMAT = "$(REPO_URI)\t$(RELEASE)\t$(COMPONENT)"

PACKAGES = ("ca-certificates", "libstdc++6", "python3", "python3-venv", "usr-is-merged", "wordnet-base")
CUDA_PACKAGES = ("gcc", "ibverbs-providers", "libc6-dev", "libibverbs1", "python3-dev")
"""What trainer-image/Dockerfile adds for CUDA: with apt-get, which the local base does not have."""
NOT_NEEDED = ("doc", "info", "locale", "man")
DOCKERFILE = "FROM scratch\nADD root.tar /\n"


def base_image(engine: Engine, wanted: str = "", packages: tuple[str, ...] = PACKAGES) -> str:
    """The name of an image to build on, which `engine` then has: `wanted`, if any is. Raises StepFailed.

    `packages`: of a base that is made here.
    """
    if wanted:
        if not (engine.has(wanted) or engine.pull(wanted)):
            raise StepFailed(f"BASE_IMAGE={wanted} can't be pulled. What to do: correct or unset it.")
        return wanted
    if engine.has(OFFICIAL):
        return OFFICIAL
    local = local_name(datetime.datetime.now(datetime.UTC).date(), packages)
    if engine.has(local):
        return local
    with step(f"Look for the base image {OFFICIAL}") as looking:
        found = engine.pull(OFFICIAL)
        looking.say("found" if found else "not to be had from here")
    if not found:
        _make(engine, local, packages)
    return OFFICIAL if found else local


def local_name(today: datetime.date, packages: tuple[str, ...] = PACKAGES) -> str:
    """The local base's name: another recipe or another month, another image, so that security fixes come in."""
    recipe = hashlib.sha256("\0".join([*_options(packages), DOCKERFILE]).encode()).hexdigest()[:8]
    return f"{LOCAL}-{recipe}-{today:%Y-%m}"


def apt_sources(targets: str, codename: str) -> list[str]:
    """The machine's own sources of its Debian (or Ubuntu) release, as lines of a sources.list.

    `targets` is what `apt-get indextargets` prints in TARGETS_FORMAT: a line for each source, whoever it is from.
    """
    suites = {codename, f"{codename}-updates", f"{codename}-security", f"{codename}/updates"}
    lines = []
    for line in targets.splitlines():
        address, suite, component = line.split("\t")
        if suite in suites and component == "main" and not address.startswith("cdrom:"):
            lines.append(f"deb {address} {suite} {component}")
    return list(dict.fromkeys(lines))


def _make(engine: Engine, name: str, packages: tuple[str, ...]) -> None:
    """Make the local base: the release that this machine runs, from where it has its own packages."""
    if shutil.which("apt-get") is None:
        raise StepFailed(
            f"{OFFICIAL} can't be pulled, and only Debian and Ubuntu can make a base image themselves. "
            "What to do: set BASE_IMAGE to an image with Python 3.11 or newer that can be pulled from here."
        )
    ensure_packages(("mmdebstrap",))
    folder = cache_dir().resolve() / "base-image"
    remedy = "run `apt-get update`: if that fails too, the machine's package sources don't answer"
    with step("Make a base image from this machine's Debian packages", remedy=remedy) as making:
        codename = platform.freedesktop_os_release().get("VERSION_CODENAME", "")
        targets = run("apt-get", "indextargets", "--format", TARGETS_FORMAT, "Created-By: Packages")
        sources = apt_sources(targets, codename)
        if not sources:
            raise making.failure(f"apt has no source for the main part of {codename or 'this release'}")
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        (folder / "sources.list").write_text("".join(f"{line}\n" for line in sources))
        (folder / "Dockerfile").write_text(DOCKERFILE)
        command: list[str | Path] = [
            "mmdebstrap",
            *_options(packages),
            codename,
            folder / "root.tar",
            folder / "sources.list",
        ]
        making.run([*own_mounts(), *command], timeout=MAKE_SECONDS, env={"TMPDIR": str(folder)})
        engine.build(making, Recipe(name, folder / "Dockerfile", folder))
    shutil.rmtree(folder)


def own_mounts() -> list[str]:
    """What lets a command's mounts vanish with it: a killed mmdebstrap left a /proc and a /sys in its folder."""
    command = ["unshare", "--mount", "--"]
    return command if ask(*command, "true") is not None else []


def _options(packages: tuple[str, ...]) -> list[str]:
    """How mmdebstrap makes the smallest system that runs Python."""
    return [
        "--mode=root",
        "--variant=essential",
        f"--include={','.join(packages)}",
        # Without it, `usrmerge` brings all of Perl.
        "--hook-dir=/usr/share/mmdebstrap/hooks/merged-usr",
        "--dpkgopt=force-unsafe-io",
        *(f"--dpkgopt=path-exclude=/usr/share/{folder}/*" for folder in NOT_NEEDED),
        # Where packages came from is of no use in an image without apt.
        '--customize-hook=rm -rf "$1"/etc/apt/sources.list*',
    ]
