"""`finetune-operator`: the command line of the operator."""

from __future__ import annotations

import asyncio
import gc
import logging
from pathlib import Path
from typing import Annotated, Literal

import structlog
import typer

from finetune_operator.runtime.sharding import Shard, parse_shard
from finetune_operator.settings import Settings

LogLevel = Literal["debug", "info", "warning", "error"]
YOUNG_OBJECTS = 20_000
"""Between two collections: at Python's 700, each event's JSON was looked through while it was still in use."""
cli = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)


@cli.callback()
def _operator() -> None:
    """Fine-tunes, evaluates and serves language models on Kubernetes."""


def _shard(text: str) -> Shard:
    try:
        return parse_shard(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


@cli.command()
def run(
    kubeconfig: Annotated[
        Path | None,
        typer.Option(help="Run outside the cluster with this kubeconfig.", exists=True, dir_okay=False),
    ] = None,
    namespace: Annotated[
        str, typer.Option(help="The operator's own namespace: its Lease and the budgets' ledgers are there.")
    ] = "default",
    leader_election: Annotated[
        bool | None,
        typer.Option(
            "--leader-election/--no-leader-election",
            help="Wait until no other replica leads. Default: inside the cluster only.",
            show_default=False,
        ),
    ] = None,
    identity: Annotated[str | None, typer.Option(help="This replica's name in the Lease: that of its Pod.")] = None,
    shard: Annotated[str, typer.Option(metavar="INDEX/COUNT", help="Part of the namespaces.")] = "0/1",
    trainer_image: Annotated[str | None, typer.Option(help="Trainer image of classes that name none.")] = None,
    gateway_image: Annotated[str | None, typer.Option(help="Image of gateways: the operator's own.")] = None,
    workers: Annotated[int, typer.Option(min=1, help="Objects that are reconciled at the same time.")] = 16,
    log_level: Annotated[
        LogLevel, typer.Option(help="The least severe messages that are logged; of libraries only warnings are.")
    ] = "info",
    resync_seconds: Annotated[
        float, typer.Option(min=1, help="How often every object is reconciled without a change.")
    ] = 600.0,
    health_port: Annotated[int, typer.Option(help="Plain HTTP port of /healthz and /readyz.")] = 8080,
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
    """Run the operator until SIGTERM."""
    if (progress_url is None) != (tls_directory is None):
        raise typer.BadParameter("--progress-url and --tls-directory go together")
    _configure_logging(log_level)
    settings = Settings(
        kubeconfig=kubeconfig,
        namespace=namespace,
        leader_election=kubeconfig is None if leader_election is None else leader_election,
        identity=identity,
        shard=_shard(shard),
        trainer_image=trainer_image,
        gateway_image=gateway_image,
        workers=workers,
        resync_seconds=resync_seconds,
        health_port=health_port,
        metrics_port=metrics_port,
        progress_port=progress_port,
        progress_url=progress_url,
        tls_directory=tls_directory,
    )
    _run(settings)


def _configure_logging(level: LogLevel = "info") -> None:
    """One JSON object per line; of libraries only warnings."""
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(level),
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso"),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(default=str),
        ],
    )
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s %(message)s")


def _run(settings: Settings) -> None:
    # Imported here: `--help` and the other command need none of it. All of it stays: no collection has to look at it.
    gc.disable()
    import uvloop

    from finetune_operator.kube.cache import RestoredError
    from finetune_operator.runtime.leader_election import LeadershipLostError
    from finetune_operator.runtime.manager import run as run_operator

    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS, 10, 10)
    gc.enable()

    failed: BaseExceptionGroup[Exception] | None = None
    try:
        uvloop.run(run_operator(settings))
    except* (LeadershipLostError, RestoredError) as group:
        failed = group
    if failed is not None:
        # Not a bug: the next process starts over, as a candidate.
        error: BaseException = failed
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        structlog.get_logger().error("the operator ends", error=str(error))
        raise typer.Exit(1)


@cli.command()
def release_finalizers(
    kubeconfig: Annotated[
        Path | None,
        typer.Option(help="Run outside the cluster with this kubeconfig.", exists=True, dir_okay=False),
    ] = None,
) -> None:
    """Let every FineTuneJob be deleted without an operator; its objects in the storage stay. For uninstalling."""
    from finetune_operator.kube.connection import connected
    from finetune_operator.release_finalizers import release_finalizers

    async def release() -> list[str]:
        async with connected(kubeconfig) as kube:
            return await release_finalizers(kube)

    released = asyncio.run(release())
    for name in released:
        typer.echo(name)
    typer.echo(f"{len(released)} FineTuneJobs can be deleted without an operator now.")


def main() -> None:
    """Entry point of the console script."""
    cli()


if __name__ == "__main__":
    main()
