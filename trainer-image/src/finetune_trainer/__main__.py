"""The command line of the trainer image, `finetune-trainer`. Imports are lazy: --help answers at once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from finetune_trainer.data.read.formats import MethodFormats
from finetune_trainer.methods.method import METHODS, formats_of
from finetune_trainer.process import environment
from finetune_trainer.process.imports import gc_paused_for_imports

EXIT_NOT_INSTALLED = 2
"""As for a wrong use of the command line."""

RunFile = Annotated[Path, typer.Argument(metavar="RUN_JSON", help="The run configuration, which the operator writes.")]
DataFiles = Annotated[list[Path], typer.Argument(metavar="FILE...", exists=True)]


def _formats_of(method: str) -> MethodFormats:
    if method not in METHODS:
        raise typer.BadParameter(f"{method!r} is not one of {', '.join(METHODS)}.")
    return formats_of(method)


MethodOption = Annotated[
    MethodFormats | None,
    typer.Option(
        parser=_formats_of, metavar=f"<{'|'.join(METHODS)}>", help="Refuse examples that this method can't learn from."
    ),
]

app = typer.Typer(
    help="Fine-tunes, evaluates and serves language models for finetune-operator.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        typer.echo(f"finetune-trainer {version('finetune-operator')}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version, and end.", is_eager=True, callback=_show_version)
    ] = False,
) -> None:
    """Fine-tunes, evaluates and serves language models for finetune-operator."""


@app.command()
def preflight(file: RunFile) -> None:
    """Read and try everything that a run needs: storage, datasets, model."""
    environment.prepare()
    from finetune_trainer.supervision.supervisor import supervise

    def command() -> int:
        from finetune_api.pod_contracts.run import PreflightRun
        from finetune_trainer.preflight.preflight import preflight
        from finetune_trainer.supervision.termination_messages import run_command

        return run_command(PreflightRun, file, preflight)

    raise typer.Exit(supervise(command))


@app.command()
def train(
    file: Annotated[Path, typer.Argument(metavar="RUN_JSON|JOB_YAML", help="What to train.", dir_okay=False)],
    output: Annotated[
        Path | None, typer.Option(help="Of a job: the folder of its runs.", show_default="./finetune-output/NAME")
    ] = None,
) -> None:
    """Train a FineTuneJob on this machine; or, in a Pod, this node's share of a run.

    A job's model and datasets may be local paths, relative to its file. The same command again goes on from the newest
    checkpoint; Ctrl-C stops with one.
    """
    from finetune_trainer.local.job_file import is_job_file

    if is_job_file(file):
        from finetune_trainer.local.training import train_job

        raise typer.Exit(train_job(file, output))
    from finetune_trainer.train.launch import train_node

    raise typer.Exit(train_node(file))


@app.command()
def evaluate(file: RunFile) -> None:
    """Let every model answer the held-out examples, and grade the answers."""
    environment.prepare()
    from finetune_trainer.supervision.supervisor import supervise

    def command() -> int:
        with gc_paused_for_imports():
            from finetune_api.pod_contracts.run import EvaluateRun
            from finetune_trainer.evaluation.evaluate import evaluate_in_pod
            from finetune_trainer.supervision.termination_messages import run_command

        return run_command(EvaluateRun, file, lambda run, _: evaluate_in_pod(run))

    raise typer.Exit(supervise(command))


@app.command()
def build_dataset(file: RunFile) -> None:
    """Read, clean and split the examples of a Dataset, and commit them as a revision."""
    environment.prepare()
    from finetune_trainer.supervision.supervisor import supervise

    def command() -> int:
        from finetune_api.pod_contracts.run import DatasetRun
        from finetune_trainer.dataset.build import build
        from finetune_trainer.supervision.termination_messages import run_command

        return run_command(DatasetRun, file, build)

    raise typer.Exit(supervise(command))


@app.command()
def fetch(file: RunFile) -> None:
    """Bring a model to where `serve` loads it from."""
    environment.prepare()
    from finetune_trainer.supervision.supervisor import supervise

    def command() -> int:
        from finetune_api.pod_contracts.run import FetchRun
        from finetune_trainer.serving.fetch import fetch
        from finetune_trainer.supervision.termination_messages import run_command

        return run_command(FetchRun, file, lambda run, _: fetch(run))

    raise typer.Exit(supervise(command))


@app.command()
def serve(file: RunFile) -> None:
    """Serve the model that `fetch` brought, over the OpenAI routes."""
    environment.prepare()
    with gc_paused_for_imports():
        from finetune_api.pod_contracts.run import SERVED_MODEL_DIRECTORY, FetchRun
        from finetune_trainer.serving.serve import serve
        from finetune_trainer.supervision.termination_messages import run_command

    def command(run: FetchRun, _: object) -> None:
        serve(Path(SERVED_MODEL_DIRECTORY) / run.name, run.model.revision)

    raise typer.Exit(run_command(FetchRun, file, command))


@app.command(hidden=True)
def python_sandbox(
    socket: Annotated[Path, typer.Argument(metavar="SOCKET", help="The Unix socket to listen on.")],
) -> None:
    """Run the code of Python graders, in the container that the operator adds to an evaluation for them."""
    environment.end_well_on_sigterm()
    from finetune_trainer.sandbox.server import serve

    serve(socket)


@app.command()
def delete(file: RunFile) -> None:
    """Remove from the storage what the runs of a deleted FineTuneJob wrote."""
    environment.prepare()
    from finetune_trainer.supervision.supervisor import supervise

    def command() -> int:
        from finetune_api.pod_contracts.run import DeleteRun
        from finetune_trainer.storage.delete import delete
        from finetune_trainer.supervision.termination_messages import run_command

        return run_command(DeleteRun, file, lambda run, _: delete(run))

    raise typer.Exit(supervise(command))


@app.command()
def validate(
    files: DataFiles,
    method: MethodOption = None,
    screen: Annotated[bool, typer.Option("--screen", help="Name lines that dataset.screening's rules flag.")] = False,
) -> None:
    """Check files of examples (or all in a folder), and name every broken line."""
    from finetune_trainer.data.validate import validate_files

    raise typer.Exit(validate_files(files, method, screens=screen))


@app.command()
def import_openai_eval(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="An eval, as OpenAI's Evals API returns it.", dir_okay=False)
    ],
    run: Annotated[Path | None, typer.Option(help="A run of it: says what the model is asked.", dir_okay=False)] = None,
    data: Annotated[
        Path | None, typer.Option(help="The data as JSON Lines, unless the run holds it.", dir_okay=False)
    ] = None,
    candidate: Annotated[
        str | None, typer.Option(help="What to evaluate: a FineTuneJob, or a model's URI.", show_default="NAME")
    ] = None,
    prompt: Annotated[
        str | None, typer.Option(help="The user's message, for example '{{item.question}}', instead of the run's.")
    ] = None,
    without: Annotated[list[str] | None, typer.Option(help="Leave out the criterion of this name.")] = None,
    name: Annotated[str | None, typer.Option(help="Of the Evaluation.", show_default="from the eval's name")] = None,
    storage: Annotated[str, typer.Option(help="Where you will put the dataset.")] = "s3://bucket/evals",
    output: Annotated[Path, typer.Option(help="The folder to write to.", file_okay=False)] = Path(),
) -> None:
    """Turn an eval of OpenAI's Evals into an Evaluation and its dataset.

    Writes NAME.yaml, NAME.jsonl and, of data with outputs, NAME-outputs.jsonl. What can't be translated is named, and
    then nothing is written.
    """
    from finetune_trainer.openai_evals.command import Files, import_openai_eval
    from finetune_trainer.openai_evals.conversion import Wishes

    files = Files(file, run, data, output, storage)
    raise typer.Exit(import_openai_eval(files, Wishes(candidate, name, prompt, tuple(without or ()))))


@app.command()
def mirror_benchmark(
    tasks: Annotated[list[str], typer.Argument(metavar="TASK...", help="By lm-eval's names; `all`: every one.")],
    to: Annotated[str, typer.Option(help="The mirror: s3://bucket/folder, or a folder on this machine.")],
    source: Annotated[
        Path | None,
        typer.Option("--from", help="A copy of the dataset's repository, instead of the hub.", file_okay=False),
    ] = None,
    revision: Annotated[
        str | None,
        typer.Option(help="Of the dataset on the hub; of a copy, its name.", show_default="the newest"),
    ] = None,
) -> None:
    """Copy the datasets of benchmarks to where evaluations read them.

    Needs a hub, or a copy of the dataset's repository. S3 is that of the variables AWS_*, as for the AWS CLI.
    """
    from finetune_trainer.local.mirroring_command import mirror_benchmarks

    raise typer.Exit(mirror_benchmarks(tasks, to, source, revision))


def main() -> None:
    """The console script."""
    environment.exit_on_sigterm()
    try:
        app()
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] in ("finetune_api", "finetune_trainer"):
            raise
        typer.echo(
            f"The Python package {error.name.partition('.')[0]} is not installed: finetune-trainer needs the extra "
            "'trainer'. In a checkout of finetune-operator: .venv/bin/pip install '.[trainer]'",
            err=True,
        )
        raise SystemExit(EXIT_NOT_INSTALLED) from None


if __name__ == "__main__":
    main()
