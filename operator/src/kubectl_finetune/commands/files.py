"""`validate`, `init`, `import`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from finetune_view.resource import FINE_TUNE_JOB
from kubectl_finetune.cluster.kubectl import Kubectl
from kubectl_finetune.cluster.resource import resource
from kubectl_finetune.commands.app import with_cluster
from kubectl_finetune.errors import ExitCode, PluginError


@with_cluster
def validate(
    kubectl: Kubectl,
    file: Annotated[str, typer.Argument(metavar="FILE", help="YAML or JSON; - reads it from stdin.")],
    local: Annotated[bool, typer.Option("--local", help="Do not ask the cluster: local checks only.")] = False,
) -> None:
    """Check objects before they are applied, locally and by a dry run on the API server. Nothing is written."""
    from kubectl_finetune.spec import validate as validating

    text = _text(file)
    documents = validating.documents(text)
    if not documents:
        raise PluginError(f"{file} has no objects.")
    problems = [f"{one.title}: {problem}" for one in documents for problem in validating.local_problems(one)]
    if not local and not problems:  # What both refuse is printed once, in the words that name the field.
        problems += validating.server_problems(kubectl, text)
    for problem in problems:
        typer.echo(problem)
    if problems:
        raise typer.Exit(ExitCode.FAILED)
    by = "the API server was not asked" if local else "nothing was written"
    typer.echo(f"{file}: {len(documents)} object{'s' * (len(documents) > 1)} valid ({by}). {validating.UNCHECKED}")


def _text(file: str) -> str:
    try:
        return sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise PluginError(f"{file} is not a text in UTF-8.") from None
    except OSError as error:
        raise PluginError(f"{file} can't be read: {error.strerror}.", ExitCode.WRONG_USAGE) from None


def init(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the new FineTuneJob.")],
    model: Annotated[str | None, typer.Option(help="s3://bucket/folder or hf://org/name@revision.")] = None,
    dataset: Annotated[str | None, typer.Option(help="s3://bucket/path or hf://datasets/org/name@rev/path.")] = None,
    validation: Annotated[str | None, typer.Option(help="Held-out examples.", show_default="a tenth")] = None,
    method: Annotated[Literal["SFT", "DPO"], typer.Option(help="Examples (SFT) or preferences (DPO).")] = "SFT",
    adapter: Annotated[Literal["LoRA", "QLoRA", "Full"], typer.Option(help="What is trained.")] = "LoRA",
    namespace: Annotated[str | None, typer.Option("--namespace", "-n", help="Namespace in the YAML.")] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="File to write.", show_default="stdout")] = None,
) -> None:
    """Write a commented YAML of a FineTuneJob to start from. In a terminal, missing values are asked for."""
    from kubectl_finetune.spec.init import FIRST_DATASET, FIRST_MODEL, job_yaml

    wanted = resource(name, (FINE_TUNE_JOB,))
    asks = sys.stdin.isatty() and sys.stdout.isatty()
    if model is None:
        model = typer.prompt("Model", default=FIRST_MODEL, err=True) if asks else FIRST_MODEL
    if dataset is None:
        dataset = typer.prompt("Training data", default=FIRST_DATASET, err=True) if asks else FIRST_DATASET
    text = job_yaml(
        wanted.name,
        model=model,
        dataset=dataset,
        namespace=namespace,
        validation=validation,
        method=method,
        adapter=adapter,
    )
    _write(text, output)


def _write(text: str, output: Path | None) -> None:
    if output is None:
        typer.echo(text, nl=False)
        return
    try:
        with output.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise PluginError(f"{output} exists already. Name another file with -o.") from None
    except OSError as error:
        raise PluginError(f"{output} can't be written: {error.strerror}.") from None
    typer.echo(f"Wrote {output}. Next: kubectl finetune validate {output}", err=True)


@with_cluster
def import_job(
    kubectl: Kubectl,
    file: Annotated[str, typer.Argument(metavar="FILE", help="A fine-tuning job as OpenAI's API returns it: JSON.")],
    dataset: Annotated[str | None, typer.Option(help="Where the content of its training file is now: s3://...")] = None,
    validation: Annotated[str | None, typer.Option(help="Where the content of its validation file is now.")] = None,
    model: Annotated[
        str | None,
        typer.Option(help="The model to tune instead.", show_default="by the class's openai.models"),
    ] = None,
    class_name: Annotated[str | None, typer.Option(help="FineTuneClass.", show_default="the default class")] = None,
    name: Annotated[str | None, typer.Option(help="Name of the new FineTuneJob.", show_default="by its suffix")] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="File to write.", show_default="stdout")] = None,
) -> None:
    """Write the YAML of the FineTuneJob that a fine-tuning job of OpenAI's would be here."""
    from kubectl_finetune.cluster.classes import find_class
    from kubectl_finetune.spec import import_openai_job as importing

    job = importing.read_job(_text(file), file)
    if dataset is None:
        raise PluginError(
            f"The training data is in OpenAI's file {importing.one_line(job.training_file)}. Download it "
            "(client.files.content), upload it to your storage, and name it with --dataset s3://BUCKET/PATH.jsonl."
        )
    uri = model or importing.model_of(job, find_class(kubectl, class_name or ""))
    given = importing.Replacements(uri, dataset, validation, name, kubectl.namespace, class_name)
    _write(importing.import_job(job, given).yaml(), output)
