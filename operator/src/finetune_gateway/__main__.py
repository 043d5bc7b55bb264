"""`finetune-gateway`: the command line of the gateway."""

from __future__ import annotations

import asyncio
import logging
import signal
from pathlib import Path
from typing import Annotated

import structlog
import typer

from finetune_gateway.policy import Limits

cli = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)


@cli.command()
def serve(
    servers: Annotated[str, typer.Option(help="DNS name whose addresses are those of the servers.")],
    in_flight: Annotated[int, typer.Option(min=1, help="Requests at a time at one server.")],
    queue: Annotated[int, typer.Option(min=0, help="Requests that wait for a place at a server.")],
    queue_seconds: Annotated[float, typer.Option(min=0, help="How long a request waits.")],
    canary_servers: Annotated[str | None, typer.Option(help="The same, of a canary's servers.")] = None,
    control_url: Annotated[str | None, typer.Option(help="Where the operator says what the canary gets.")] = None,
    control_token: Annotated[Path, typer.Option(help="File with the token for it.")] = Path("token"),
    control_ca: Annotated[str, typer.Option(envvar="FINETUNE_CONTROL_CA", help="PEM certificates that it has.")] = "",
    servers_port: Annotated[int, typer.Option(help="TCP port of the servers.")] = 8000,
    host: Annotated[str | None, typer.Option(help="Address to listen at. Omitted: all.")] = None,
    port: Annotated[int, typer.Option(help="TCP port of the API.")] = 8000,
    metrics_port: Annotated[int, typer.Option(help="TCP port of /metrics and /healthz.")] = 9400,
    linger_seconds: Annotated[float, typer.Option(min=0, help="After SIGTERM, requests are accepted for so long.")] = 5,
    drain_seconds: Annotated[float, typer.Option(min=0, help="After that, answers are completed for so long.")] = 90,
) -> None:
    """Pass requests on to the servers of one ModelDeployment until SIGTERM."""
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso"),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(default=str),
        ]
    )
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    from finetune_gateway.app import Settings
    from finetune_gateway.canary.control import Control

    limits = Limits(in_flight, queue, queue_seconds)
    control = Control(control_url, control_token, control_ca) if control_url is not None else None
    settings = Settings(limits, host, port, metrics_port, linger_seconds, drain_seconds, control)
    asyncio.run(_serve(settings, servers, canary_servers, servers_port))


async def _serve(settings: object, servers: str, canary_servers: str | None, servers_port: int) -> None:
    from finetune_gateway.app import Settings, run
    from finetune_gateway.servers import by_name

    assert isinstance(settings, Settings)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    structlog.get_logger().info("serving", servers=servers, port=settings.port)
    canary = None if canary_servers is None else by_name(canary_servers, servers_port)
    await run(settings, by_name(servers, servers_port), stop, canary)


def main() -> None:
    """Entry point of the console script."""
    cli()


if __name__ == "__main__":
    main()
