"""`finetune-trainer import-openai-eval`: reads an eval, a run and data, and writes an Evaluation and its dataset."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import typer
from pydantic import ValidationError

from finetune_api.base import problems
from finetune_grading.openai_graders.findings import Findings, ImportRefusedError
from finetune_grading.registered_graders import check_graders
from finetune_trainer.data.read.jsonl import LineError
from finetune_trainer.openai_evals.conversion import Conversion, Wishes, convert
from finetune_trainer.openai_evals.documents import DataSource, read_data_source, read_eval
from finetune_trainer.openai_evals.manifest import evaluation_yaml
from finetune_trainer.openai_evals.rows import import_lines, item_of, read_content, read_data, sample_of

MOST_SHOWN = 100
"""Broken lines; the data is not read further."""
Values = Iterator[tuple[int, object] | LineError]


@dataclass(frozen=True)
class Files:
    """What is read, and where to."""

    eval: Path
    run: Path | None
    data: Path | None
    output: Path
    folder: str


def import_openai_eval(files: Files, wishes: Wishes) -> int:
    """Write NAME.yaml, NAME.jsonl and, of outputs that there are, NAME-outputs.jsonl. Returns the exit code.

    If anything can't be translated, nothing is written, and all of it is reported.
    """
    try:
        written = _import(files, wishes)
    except ImportRefusedError as error:
        for problem in error.problems:
            typer.secho(_printable(problem), fg=typer.colors.RED, err=True)
        if any(problem.startswith("testing_criteria") for problem in error.problems):
            typer.echo("A criterion is left out with --without NAME.", err=True)
        typer.echo("Nothing was written.", err=True)
        return 1
    for line in written:
        typer.echo(_printable(line))
    return 0


def _import(files: Files, wishes: Wishes) -> list[str]:
    """Returns what to print. Raises ImportRefusedError."""
    findings = Findings()
    run = None if files.run is None else read_data_source(files.run)
    conversion = convert(read_eval(files.eval), run, wishes, findings)
    findings.raise_if_refused()
    first, values = _first(_data(files, run), _data_name(files))
    has_samples = sample_of(first) is not None
    if has_samples and conversion.baseline_model is not None:
        findings.note("sample", f"not used: as with OpenAI, the run asks the model {conversion.baseline_model!r}.")
    with_outputs = has_samples and conversion.baseline_model is None
    _check_complete(conversion, first, with_outputs, findings)
    try:
        spec = conversion.spec(files.folder.rstrip("/"), with_outputs)
    except ValidationError as error:
        raise ImportRefusedError([f"The Evaluation: {problems(error)}"]) from error
    names = [f"{conversion.name}.jsonl"] + ([f"{conversion.name}-outputs.jsonl"] if with_outputs else [])
    yaml_name = f"{conversion.name}.yaml"
    _refuse_existing([files.output / name for name in (yaml_name, *names)])
    count = _write_data(conversion, values, [files.output / name for name in names], _data_name(files))
    text = evaluation_yaml(conversion, spec, findings.notes)
    (files.output / yaml_name).write_text(text, encoding="utf-8")
    uploads = [f"  aws s3 cp {files.output / name} {files.folder.rstrip('/')}/{name}" for name in names]
    return [
        f"{files.output / yaml_name}: {len(conversion.graders)} graders, {count} examples.",
        *(f"note: {note}" for note in findings.notes),
        *(
            f"The class needs a model {ours!r} that stands for OpenAI's {theirs!r}: see {yaml_name}."
            for theirs, ours in conversion.models.items()
        ),
        "Next:",
        *uploads,
        f"  kubectl apply -f {files.output / yaml_name}",
    ]


def _data(files: Files, run: DataSource | None) -> Values:
    """Raises ImportRefusedError where there is none."""
    if files.data is not None:
        return read_data(files.data)
    if run is not None and run.source.content is not None:
        return read_content(run.source.content)
    what = "" if run is None or run.source.id is None else f" The run's is OpenAI's file {run.source.id}."
    raise ImportRefusedError(
        [f"There is no data: give its JSON Lines as --data, or a run that holds it as --run.{what}"]
    )


def _data_name(files: Files) -> str:
    return str(files.data) if files.data is not None else f"{files.run}: data_source.source.content"


def _first(values: Values, name: str) -> tuple[object, Values]:
    """The first value, and all of them. Raises ImportRefusedError."""
    try:
        first = next(values, None)
    except OSError as error:
        raise ImportRefusedError([f"{name} can't be read: {error.strerror}."]) from error
    if first is None:
        raise ImportRefusedError([f"{name} has no data."])
    if isinstance(first, LineError):
        raise ImportRefusedError([f"{name}:{first.line}: {first.message}"])
    try:
        item_of(first[1])
        sample_of(first[1])
    except ValueError as error:
        raise ImportRefusedError([f"{name}:{first[0]}: {error}"]) from error
    return first[1], itertools.chain([first], values)


def _check_complete(conversion: Conversion, first: object, with_outputs: bool, findings: Findings) -> None:
    """What neither the eval nor the run says. Raises ImportRefusedError."""
    sample = sample_of(first) or {}
    if conversion.prompting.messages is None and sample.get("input") is None:
        fields = ", ".join(f"{{{{item.{name}}}}}" for name in item_of(first))
        findings.refuse(
            "input_messages",
            "an eval alone does not say what the model is asked. Give the run with --run, or the user's message with "
            f"--prompt, for example one of: {fields[:500]}",
        )
    if "uri" in conversion.candidate["model"] and conversion.baseline_model is None and not with_outputs:
        findings.refuse(
            "--candidate",
            "a model by URI needs a baseline to be compared with. Give a run that asked a model with --run, data with "
            "outputs, or a FineTuneJob's name, whose base model becomes the baseline.",
        )
    findings.raise_if_refused()


def _refuse_existing(files: list[Path]) -> None:
    there = [f"{file} exists already. Move it away, or set --name or --output." for file in files if file.exists()]
    if there:
        raise ImportRefusedError(there)


def _write_data(conversion: Conversion, values: Values, files: list[Path], name: str) -> int:
    """Write all lines or none; returns how many. Memory does not grow with them. Raises ImportRefusedError."""
    graders = check_graders(conversion.graders)
    broken: list[str] = []
    count = 0
    with ExitStack() as stack:
        files[0].parent.mkdir(parents=True, exist_ok=True)
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix=".import-", dir=files[0].parent)))
        streams = [stack.enter_context((folder / file.name).open("wb")) for file in files]
        for line in import_lines(values, conversion.prompting, graders, len(files) > 1):
            if isinstance(line, LineError):
                broken.append(f"{name}:{line.line}: {line.message}")
                if len(broken) == MOST_SHOWN:
                    break
                continue
            count += 1
            for stream, content in zip(streams, (line.example, line.output), strict=False):
                stream.write(content or b"")
        if broken:
            raise ImportRefusedError(broken)
        for stream, file in zip(streams, files, strict=True):
            stream.close()
            (folder / file.name).replace(file)
    return count


def _printable(text: str) -> str:
    """The text without control characters, by which a file could control the terminal."""
    return "".join(one if one.isprintable() else " " for one in text)
