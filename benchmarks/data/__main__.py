"""How fast a dataset is validated, against reading the same lines with orjson alone.

`python -m benchmarks.data [--megabytes 1000] [--rounds 3] [--json FILE]`. Each measurement is a process of its own, the
two take turns, and the figures are of CPU time, so that what else the machine does matters little.
"""

from __future__ import annotations

import json
import platform
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer
from rich.console import Console
from rich.table import Table

MEASURED = "--measure"
WORDS = 5000
AIM_RATIO = 0.5
AIM_MEGABYTES = 300.0


def write_chats(file: Path, size: int) -> None:
    """Conversations of one to three turns of ordinary length, until the file has `size` bytes. The seed is fixed."""
    chance = random.Random(17)
    words = ["".join(chance.choices("abcdefghijklmnopqrstuvwxyz", k=chance.randint(2, 9))) for _ in range(WORDS)]

    def text(shortest: int, longest: int) -> str:
        return " ".join(chance.choices(words, k=chance.randint(shortest, longest)))

    lines = []
    for _ in range(10_000):
        messages = [{"role": "system", "content": text(20, 20)}]
        for _ in range(chance.randint(1, 3)):
            messages += [{"role": "user", "content": text(10, 120)}, {"role": "assistant", "content": text(10, 150)}]
        lines.append(orjson.dumps({"messages": messages}) + b"\n")
    with file.open("wb") as stream:
        written = 0
        while written < size:
            written += stream.write(chance.choice(lines))


def read_with_orjson(file: Path) -> int:
    """The rival: decode every line, and look at nothing."""
    count = 0
    with file.open("rb") as stream:
        for line in stream:
            orjson.loads(line)
            count += 1
    return count


def validate(file: Path) -> int:
    """What `finetune-trainer validate` and preflight do with every line."""
    from finetune_trainer.data.examples import read_examples
    from finetune_trainer.data.jsonl import LineError

    count = 0
    for item in read_examples(file):
        assert not isinstance(item, LineError), item
        count += 1
    return count


CONTENDERS: dict[str, Callable[[Path], int]] = {"orjson alone": read_with_orjson, "finetune-trainer": validate}


def measure(contender: str, file: Path) -> dict[str, Any]:
    """CPU seconds, lines and peak memory of one contender, in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.data", MEASURED, contender, str(file)]
    answer = subprocess.run(command, check=True, capture_output=True, timeout=600)
    found: dict[str, Any] = json.loads(answer.stdout)
    return found


def main(
    megabytes: Annotated[int, typer.Option(min=1)] = 1000,
    rounds: Annotated[int, typer.Option(min=1)] = 3,
    output: Annotated[Path | None, typer.Option("--json", help="Where the figures are written to.")] = None,
) -> None:
    """Measure both, by turns, and print a table."""
    console = Console()
    with tempfile.TemporaryDirectory(prefix="benchmark-data-") as directory:
        file = Path(directory) / "chats.jsonl"
        write_chats(file, megabytes * 1_000_000)
        found: dict[str, list[dict[str, Any]]] = {name: [] for name in CONTENDERS}
        for number in range(rounds):
            for name in CONTENDERS:
                console.print(f"round {number + 1} of {rounds}: {name}", style="dim")
                found[name].append(measure(name, file))
        size = file.stat().st_size / 1e6
    speed = {name: statistics.median(size / run["cpuSeconds"] for run in runs) for name, runs in found.items()}
    memory = {name: max(run["peakMegabytes"] for run in runs) for name, runs in found.items()}
    ratio = speed["finetune-trainer"] / speed["orjson alone"]
    table = Table(title=f"{found['orjson alone'][0]['lines']} lines of chat, {size:.0f} MB, median of {rounds} rounds")
    for column in ("", "MB/s of one core", "peak memory, MB"):
        table.add_column(column, justify="right" if column else "left")
    for name in CONTENDERS:
        table.add_row(name, f"{speed[name]:.0f}", f"{memory[name]:.0f}")
    console.print(table)
    console.print(f"ratio {ratio:.2f} (aim: at least {AIM_RATIO}), memory below {AIM_MEGABYTES:.0f} MB")
    if output is not None:
        machine = {"processor": platform.processor() or platform.machine(), "python": platform.python_version()}
        report = {"machine": machine, "megabytes": size, "rounds": found, "speed": speed, "ratio": ratio}
        output.write_text(json.dumps(report, indent=1) + "\n")


def _measured(contender: str, file: Path) -> None:
    before = time.process_time()
    lines = CONTENDERS[contender](file)
    seconds = time.process_time() - before
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    sys.stdout.write(json.dumps({"lines": lines, "cpuSeconds": seconds, "peakMegabytes": peak}) + "\n")


if __name__ == "__main__":
    if sys.argv[1:2] == [MEASURED]:
        _measured(sys.argv[2], Path(sys.argv[3]))
    else:
        typer.run(main)
