"""Upload and download speed of the trainer's storage against rclone, on the same files and the same S3.

    python -m benchmarks.checkpoint.transfers --json transfers.json

Both move the same random files to and from one SeaweedFS on this machine, in turns, the one that begins changing with
each round. Both check what they move: ours by SHA-256, rclone by MD5, each as it does by default. rclone gets as many
files and parts at once as ours and parts of the same size. Its time includes that of its process's start (0.1 s); ours
has no start, for the trainer's client is there before it transfers anything.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import resource
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.checkpoint import rclone_build
from e2e.s3 import REGION, S3, local_s3
from finetune_api.pod_contracts.run import StorageConfig
from finetune_api.sources import StorageLocation
from finetune_trainer.storage.storage import PARALLEL_FILES, Storage, in_parallel
from finetune_trainer.storage.transfers import PART_BYTES, PARTS_IN_MEMORY

BUCKET = "transfers"
MEGABYTE = 10**6
RCLONE_SECONDS = 900.0

console = Console(soft_wrap=True)


@dataclass(frozen=True)
class Load:
    """Files of the same size."""

    name: str
    files: int
    size: int

    @property
    def megabytes(self) -> float:
        return self.files * self.size / MEGABYTE


@dataclass(frozen=True)
class Result:
    """MB/s of every round, and seconds of CPU for each GB: on a machine that others use too, these say more."""

    load: str
    direction: str
    ours: list[float] = field(default_factory=list)
    rclone: list[float] = field(default_factory=list)
    ours_cpu: list[float] = field(default_factory=list)
    rclone_cpu: list[float] = field(default_factory=list)

    @property
    def ratio(self) -> float:
        """How many times rclone's speed ours is, by medians."""
        return statistics.median(self.ours) / statistics.median(self.rclone)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--large-mib", type=int, default=1024, help="size of the one large file")
    parser.add_argument("--json", type=Path, default=None, help="where to write the numbers")
    options = parser.parse_args()
    loads = [Load("1 large file", 1, options.large_mib * 2**20), Load("64 files of 4 MiB", 64, 4 * 2**20)]
    program = rclone_build.rclone()
    with tempfile.TemporaryDirectory(prefix="transfers-") as directory, local_s3() as s3:
        s3.create_bucket(BUCKET)
        os.environ.update(s3.environment())
        results = [result for load in loads for result in measure(load, options.rounds, Path(directory), s3, program)]
    console.print(table(results))
    if options.json is not None:
        described = [{**asdict(result), "ratio": result.ratio} for result in results]
        machine = {"cores": os.cpu_count(), "load": os.getloadavg(), "python": platform.python_version()}
        options.json.write_text(
            json.dumps({"results": described, "rclone": rclone_build.version(), "machine": machine}, indent=1) + "\n"
        )


def measure(load: Load, rounds: int, directory: Path, s3: S3, program: Path) -> list[Result]:
    """The speeds of both, up and down."""
    source, target = directory / "source", directory / "target"
    source.mkdir()
    paths = [f"file-{number:03d}" for number in range(load.files)]
    for path in paths:
        with (source / path).open("wb") as file:
            for _ in range(load.size // 2**20):
                file.write(os.urandom(2**20))
    up, down = Result(load.name, "upload"), Result(load.name, "download")
    storage = Storage(StorageConfig(endpoint=s3.endpoint, region=REGION, path_style=True))
    for number in range(rounds):
        for ours_now in (True, False) if number % 2 == 0 else (False, True):
            if ours_now:
                ours(storage, load, source, target, up, down)
            else:
                theirs(program, s3, load, source, target, up, down)
            refuse_difference(source, target)
            shutil.rmtree(target)
        console.print(
            f"{load.name}, round {number + 1} of {rounds}: up {up.ours[-1]:.0f} against {up.rclone[-1]:.0f} MB/s, "
            f"down {down.ours[-1]:.0f} against {down.rclone[-1]:.0f} MB/s"
        )
    shutil.rmtree(source)
    return [up, down]


def ours(storage: Storage, load: Load, source: Path, target: Path, up: Result, down: Result) -> None:
    folder = StorageLocation(BUCKET, "ours")
    paths = [file.name for file in source.iterdir()]
    digests: dict[str, str] = {}

    def upload(path: str) -> None:
        digests[path] = storage.upload(source / path, folder.join(path)).sha256

    def download(path: str) -> None:
        storage.download(folder.join(path), target / path, size=load.size, sha256=digests[path])

    for result, one in ((up, upload), (down, download)):
        wall, cpu = seconds(partial(in_parallel, one, paths), resource.RUSAGE_SELF)
        result.ours.append(load.megabytes / wall)
        result.ours_cpu.append(1000 * cpu / load.megabytes)


def theirs(program: Path, s3: S3, load: Load, source: Path, target: Path, up: Result, down: Result) -> None:
    remote = f"s3:{BUCKET}/rclone"
    for result, origin, goal in ((up, str(source), remote), (down, remote, str(target))):
        wall, cpu = seconds(partial(run_rclone, program, s3, origin, goal), resource.RUSAGE_CHILDREN)
        result.rclone.append(load.megabytes / wall)
        result.rclone_cpu.append(1000 * cpu / load.megabytes)


def run_rclone(program: Path, s3: S3, source: str, target: str) -> None:
    settings = {
        "TYPE": "s3",
        "PROVIDER": "SeaweedFS",
        "ENDPOINT": s3.endpoint,
        "ACCESS_KEY_ID": s3.access_key,
        "SECRET_ACCESS_KEY": s3.secret_key,
        "REGION": REGION,
    }
    part = f"{PART_BYTES // 2**20}M"
    options = [
        *("--config", os.devnull, "--ignore-times", "--retries", "1", "--s3-no-check-bucket"),
        *("--transfers", str(PARALLEL_FILES), "--s3-chunk-size", part, "--s3-upload-concurrency", str(PARTS_IN_MEMORY)),
        *("--s3-upload-cutoff", part, "--multi-thread-cutoff", part, "--multi-thread-streams", str(PARTS_IN_MEMORY)),
    ]
    subprocess.run(
        [program, "copy", *options, source, target],
        env={**os.environ, **{f"RCLONE_CONFIG_S3_{name}": value for name, value in settings.items()}},
        check=True,
        timeout=RCLONE_SECONDS,
    )


def seconds(work: Callable[[], None], whose: int) -> tuple[float, float]:
    """Seconds that passed, and seconds of CPU that this process or (`whose`) its ended children used."""
    started, before = time.perf_counter(), resource.getrusage(whose)
    work()
    after = resource.getrusage(whose)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return time.perf_counter() - started, cpu


def refuse_difference(source: Path, target: Path) -> None:
    """Raises ValueError when what came back is not what was sent."""
    for file in source.iterdir():
        if sha256(file) != sha256(target / file.name):
            raise ValueError(f"{file.name} came back as something else")


def sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def table(results: list[Result]) -> Table:
    made = Table("files", "direction", "ours MB/s", "rclone MB/s", "ratio", "ours CPU s/GB", "rclone CPU s/GB")
    for result in results:
        made.add_row(
            result.load,
            result.direction,
            f"{statistics.median(result.ours):.0f}",
            f"{statistics.median(result.rclone):.0f}",
            f"{result.ratio:.2f}",
            f"{statistics.median(result.ours_cpu):.2f}",
            f"{statistics.median(result.rclone_cpu):.2f}",
        )
    return made


if __name__ == "__main__":
    main()
