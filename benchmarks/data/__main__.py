"""How fast a dataset is validated, against reading the same lines with orjson alone, and in how much memory.

`python -m benchmarks.data [--megabytes 1000] [--rounds 3] [--json FILE]`. What is measured is the code that runs behind
`finetune-trainer validate FILE`, and behind preflight, which also remembers of each example what shows duplicates,
conflicts and leaks (`data/select/survey.py`). Each measurement is a process of its own, they take turns, and the
figures are of CPU time, so that what else the machine does matters little. Ends with status 1 when an aim is missed.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import platform
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer
from rich.console import Console
from rich.table import Table

MEASURED = "--measure"
WORDS = 5000
DISTINCT_LINES = 10_000
AIM_RATIO = 0.5
AIM_MEGABYTES = 300.0

ORJSON, VALIDATE, SURVEY = "orjson alone", "finetune-trainer validate", "preflight's survey"


@dataclass(frozen=True)
class Load:
    """Conversations, and how many of the megabytes that were asked for a file of them has."""

    name: str
    write_messages: Callable[[Text], list[dict[str, str]]]
    share: float
    aimed: bool
    """Whether the aims are about these."""


class Text:
    """Text of invented words. The seed is fixed."""

    def __init__(self) -> None:
        self.chance = random.Random(17)
        letters = "abcdefghijklmnopqrstuvwxyz"
        self._words = ["".join(self.chance.choices(letters, k=self.chance.randint(2, 9))) for _ in range(WORDS)]

    def of(self, shortest: int, longest: int) -> str:
        """So many words."""
        return " ".join(self.chance.choices(self._words, k=self.chance.randint(shortest, longest)))


def ordinary_chat(text: Text) -> list[dict[str, str]]:
    """One to three turns after a system prompt."""
    messages = [{"role": "system", "content": text.of(20, 20)}]
    for _ in range(text.chance.randint(1, 3)):
        messages += [
            {"role": "user", "content": text.of(10, 120)},
            {"role": "assistant", "content": text.of(10, 150)},
        ]
    return messages


def shortest_chat(text: Text) -> list[dict[str, str]]:
    """A turn of a few words."""
    return [{"role": "user", "content": text.of(3, 3)}, {"role": "assistant", "content": text.of(2, 2)}]


LOADS = (
    Load("chats of ordinary length", ordinary_chat, 1.0, aimed=True),
    Load("very short chats", shortest_chat, 0.1, aimed=False),
)


def write_lines(file: Path, size: int, load: Load) -> int:
    """Write conversations until the file has `size` bytes; answers how many."""
    text = Text()
    lines = [orjson.dumps({"messages": load.write_messages(text)}) + b"\n" for _ in range(DISTINCT_LINES)]
    written = count = 0
    with file.open("wb") as stream:
        while written < size:
            written += stream.write(text.chance.choice(lines))
            count += 1
    return count


def read_with_orjson() -> Callable[[Path], None]:
    """The rival: decode every line, and look at nothing. With the same buffer, so that only the checks differ."""
    from finetune_trainer.data.read.jsonl import READ_AT_ONCE

    def read(file: Path) -> None:
        with file.open("rb", buffering=READ_AT_ONCE) as stream:
            for line in stream:
                orjson.loads(line)

    return read


def validate() -> Callable[[Path], None]:
    """What the command does with a file."""
    from finetune_trainer.data.validate import check_file

    def read(file: Path) -> None:
        with contextlib.redirect_stdout(io.StringIO()):
            assert check_file(file), file

    return read


def survey() -> Callable[[Path], None]:
    """What preflight does with a set, before it looks at a model and counts tokens."""
    from finetune_trainer.data.read.data_files import DataFile
    from finetune_trainer.data.select import survey as surveys

    def read(file: Path) -> None:
        surveyed = surveys.survey("training", [DataFile(file.as_uri(), file, sha256="")])
        assert not surveyed.errors, surveyed.errors

    return read


CONTENDERS: dict[str, Callable[[], Callable[[Path], None]]] = {
    ORJSON: read_with_orjson,
    VALIDATE: validate,
    SURVEY: survey,
}


def measure(contender: str, file: Path) -> dict[str, float]:
    """CPU seconds and memory of one contender, in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.data", MEASURED, contender, str(file)]
    answer = subprocess.run(command, check=True, stdout=subprocess.PIPE, timeout=600)
    found: dict[str, float] = json.loads(answer.stdout)
    return found


def compare(load: Load, megabytes: int, rounds: int, console: Console) -> dict[str, Any]:
    """Every contender on one file. The survey, slow and without an aim, has one round."""
    with tempfile.TemporaryDirectory(prefix="benchmark-data-") as directory:
        file = Path(directory) / "chats.jsonl"
        console.print(f"{load.name}: the file is written", style="dim")
        lines = write_lines(file, int(megabytes * load.share * 1_000_000), load)
        size = file.stat().st_size
        runs: dict[str, list[dict[str, float]]] = {name: [] for name in CONTENDERS}
        for number in range(rounds):
            for name in CONTENDERS if number == 0 else (ORJSON, VALIDATE):
                console.print(f"{load.name}, round {number + 1} of {rounds}: {name}", style="dim")
                runs[name].append(measure(name, file))
    speed = {name: statistics.median(size / 1e6 / run["cpuSeconds"] for run in of) for name, of in runs.items()}
    return {
        "load": load.name,
        "megabytes": size / 1e6,
        "lines": lines,
        "megabytesPerSecond": speed,
        "ratio": speed[VALIDATE] / speed[ORJSON],
        "peakMegabytes": {name: max(run["peakMegabytes"] for run in of) for name, of in runs.items()},
        "bytesPerLine": {name: max(run["grownMegabytes"] for run in of) * 1e6 / lines for name, of in runs.items()},
        "runs": runs,
    }


def table_of(found: dict[str, Any], rounds: int) -> Table:
    """The figures of one load, for a person."""
    title = f"{found['load']}: {found['lines']} lines, {found['megabytes']:.0f} MB, median of {rounds} rounds"
    table = Table(title=title)
    table.add_column(no_wrap=True)
    for column in ("MB/s of one core", "peak MB", "grown, bytes a line"):
        table.add_column(column, justify="right")
    for name in CONTENDERS:
        figures = (found[figure][name] for figure in ("megabytesPerSecond", "peakMegabytes", "bytesPerLine"))
        table.add_row(name, *(f"{figure:.0f}" for figure in figures))
    return table


def main(
    megabytes: Annotated[int, typer.Option(min=1)] = 1000,
    rounds: Annotated[int, typer.Option(min=1)] = 3,
    output: Annotated[Path | None, typer.Option("--json", help="Where the figures are written to.")] = None,
) -> None:
    """Measure all, by turns, and print a table for each kind of file."""
    console = Console()
    results = []
    for load in LOADS:
        results.append(compare(load, megabytes, rounds, console))
        console.print(table_of(results[-1], rounds))
        console.print(f"validate's speed is {results[-1]['ratio']:.2f} of orjson's alone")
    if output is not None:
        machine = {"cores": os.cpu_count(), "load": os.getloadavg(), "python": platform.python_version()}
        output.write_text(json.dumps({"machine": machine, "results": results}, indent=1) + "\n")
    aimed = [result for load, result in zip(LOADS, results, strict=True) if load.aimed]
    met = all(result["ratio"] >= AIM_RATIO and result["peakMegabytes"][VALIDATE] < AIM_MEGABYTES for result in aimed)
    console.print(
        f"The aim of validate, at least {AIM_RATIO} of orjson's speed in less than {AIM_MEGABYTES:.0f} MB with "
        f"{LOADS[0].name}, is {'met' if met else 'missed'}."
    )
    raise typer.Exit(0 if met else 1)


def _measured(contender: str, file: Path) -> None:
    read = CONTENDERS[contender]()
    memory = _peak_megabytes()
    before = time.process_time()
    read(file)
    seconds = time.process_time() - before
    peak = _peak_megabytes()
    found = {"cpuSeconds": seconds, "peakMegabytes": peak, "grownMegabytes": peak - memory}
    sys.stdout.write(json.dumps(found) + "\n")


def _peak_megabytes() -> float:
    """The most memory that this process held; getrusage's figure begins with that of the process that started it."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None, "Linux tells it"
    return int(found[1]) * 1024 / 1e6


if __name__ == "__main__":
    if sys.argv[1:2] == [MEASURED]:
        _measured(sys.argv[2], Path(sys.argv[3]))
    else:
        typer.run(main)
