"""`finetune-openai`: the command line of the API."""

from __future__ import annotations

import asyncio
import logging
import signal
import ssl
import time
from collections import Counter
from pathlib import Path
from typing import Annotated

import structlog
import typer

cli = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)
CUT_LOG_INTERVAL_SECONDS = 60.0
STOP_SECONDS = 60.0
"""How long requests in flight, uploads above all, may take after SIGTERM."""


class CutConnections:
    """Tells of connections that were cut, in a line a minute: whoever makes them chooses how many there are."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._next = 0.0

    def __call__(self, cause: str) -> None:
        self._counts[cause] += 1
        if time.monotonic() >= self._next:
            structlog.get_logger().warning("connections without a whole request were cut", **self._counts)
            self._counts.clear()
            self._next = time.monotonic() + CUT_LOG_INTERVAL_SECONDS


@cli.command()
def serve(
    namespace: Annotated[str, typer.Option(help="The namespace whose jobs are served.")],
    class_name: Annotated[str, typer.Option(help="The FineTuneClass of its jobs, whose storage holds the files.")],
    port: Annotated[int, typer.Option(help="TCP port.")] = 8080,
    credentials: Annotated[
        Path | None,
        typer.Option(help="Folder with the storage's keys as a Secret is mounted. Omitted: a pod identity."),
    ] = None,
    api_keys: Annotated[
        Path | None, typer.Option(help="Folder with the digests of API keys as a Secret is mounted. Omitted: none.")
    ] = None,
    tls_directory: Annotated[
        Path | None, typer.Option(help="tls.crt and tls.key: HTTPS.", exists=True, file_okay=False)
    ] = None,
    kubeconfig: Annotated[
        Path | None, typer.Option(help="Run outside the cluster with this kubeconfig.", exists=True, dir_okay=False)
    ] = None,
) -> None:
    """Serve OpenAI's fine-tuning API for one namespace until SIGTERM."""
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso"),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(default=str),
        ]
    )
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    asyncio.run(_serve(namespace, class_name, port, credentials, api_keys, tls_directory, kubeconfig))


async def _serve(
    namespace: str,
    class_name: str,
    port: int,
    credentials: Path | None,
    api_keys: Path | None,
    tls: Path | None,
    kubeconfig: Path | None,
) -> None:
    from finetune_http.connections import Connections, raise_open_files
    from finetune_http.listening import listening
    from finetune_openai.app import application
    from finetune_openai.auth.callers import Access
    from finetune_openai.context import Context
    from finetune_openai.platform import Platform
    from finetune_operator.kube.connection import connected

    stop = asyncio.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(name, stop.set)
    context_tls = None
    if tls is not None:
        context_tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context_tls.load_cert_chain(tls / "tls.crt", tls / "tls.key")
    async with connected(kubeconfig, field_manager="finetune-openai") as kube:
        platform = Platform(kube, class_name, namespace, credentials)
        app = application(Context(namespace, kube, Access(kube, namespace, api_keys), platform))
        raise_open_files()
        cut = CutConnections()
        async with listening(app, Connections(cut), None, port, STOP_SECONDS, tls=context_tls, read_bufsize=2**18):
            structlog.get_logger().info("serving", namespace=namespace, port=port)
            await stop.wait()


def main() -> None:
    """Entry point of the console script."""
    cli()


if __name__ == "__main__":
    main()
