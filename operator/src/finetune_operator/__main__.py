"""`finetune-operator`: the command line of the operator."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Annotated

import structlog
import typer

from finetune_operator.settings import Settings

cli = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)


@cli.callback()
def _operator() -> None:
    """Fine-tunes, evaluates and serves language models on Kubernetes."""


@cli.command()
def run(
    kubeconfig: Annotated[
        Path | None,
        typer.Option(help="Run outside the cluster with this kubeconfig.", exists=True, dir_okay=False),
    ] = None,
    trainer_image: Annotated[str | None, typer.Option(help="Trainer image of classes that name none.")] = None,
    workers: Annotated[int, typer.Option(min=1, help="Objects that are reconciled at the same time.")] = 8,
    health_port: Annotated[int, typer.Option(help="Plain HTTP port of /healthz.")] = 8080,
    metrics_port: Annotated[int, typer.Option(help="Plain HTTP port of /metrics.")] = 9090,
    progress_port: Annotated[int, typer.Option(help="HTTPS port of the progress endpoint.")] = 8443,
    progress_url: Annotated[
        str | None, typer.Option(help="Base URL under which training Pods reach the progress endpoint.")
    ] = None,
    tls_directory: Annotated[
        Path | None,
        typer.Option(help="tls.crt, tls.key and ca.crt of the progress endpoint.", exists=True, file_okay=False),
    ] = None,
) -> None:
    """Run the operator until it is told to stop."""
    from finetune_operator.application import run as run_operator

    if (progress_url is None) != (tls_directory is None):
        raise typer.BadParameter("--progress-url and --tls-directory go together")
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso"),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(default=str),
        ]
    )
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    settings = Settings(
        kubeconfig=kubeconfig,
        trainer_image=trainer_image,
        workers=workers,
        health_port=health_port,
        metrics_port=metrics_port,
        progress_port=progress_port,
        progress_url=progress_url,
        tls_directory=tls_directory,
    )
    asyncio.run(run_operator(settings))


def main() -> None:
    """Entry point of the console script."""
    cli()


if __name__ == "__main__":
    main()
