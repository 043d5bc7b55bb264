"""`finetune-openai`: the command line of the API."""

from __future__ import annotations

import asyncio
import logging
import signal
import ssl
from pathlib import Path
from typing import Annotated

import structlog
import typer

cli = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)
STOP_SECONDS = 60.0
"""How long requests in flight, uploads above all, may take once the process is told to end."""


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
    """Serve OpenAI's fine-tuning API for one namespace until told to stop."""
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
    from aiohttp import web

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
        # Nothing is unpacked: a body of kilobytes would become megabytes, which all others wait for.
        runner = web.AppRunner(
            app, access_log=None, shutdown_timeout=STOP_SECONDS, read_bufsize=2**18, auto_decompress=False
        )
        await runner.setup()
        try:
            await web.TCPSite(runner, None, port, ssl_context=context_tls).start()
            structlog.get_logger().info("serving", namespace=namespace, port=port)
            await stop.wait()
        finally:
            await runner.cleanup()


def main() -> None:
    """Entry point of the console script."""
    cli()


if __name__ == "__main__":
    main()
