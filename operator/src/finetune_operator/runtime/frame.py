"""Kopf as the frame: the watches (kube/informer.py) begin when it starts, and end when it is told to stop."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Sequence
from typing import Any

import kopf

from finetune_operator.kube.informer import Informer

END_SECONDS = 15.0
"""How long Kopf may take to end itself after an error; then it kills the process."""


async def watch(
    informers: Sequence[Sequence[Informer]],
    stop: asyncio.Event,
    watching: asyncio.Event,
    tasks: asyncio.TaskGroup,
    request_timeout_seconds: float,
) -> None:
    """Run the informers until `stop`: each group once all objects of the one before are known.

    `watching` is set when all are. An informer never ends by itself; a bug in one fails `tasks`, and so the process.
    """
    registry = kopf.OperatorRegistry()
    running: list[asyncio.Task[None]] = []

    @kopf.on.login(registry=registry)
    def login(**kwargs: Any) -> kopf.ConnectionInfo | None:
        return kopf.login_with_kubeconfig(**kwargs) or kopf.login_with_service_account(**kwargs)

    @kopf.on.startup(registry=registry)
    async def begin(**_: Any) -> None:
        stop_at_signals(stop)  # Kopf has put its own in their place, which would end the watches, but not the rest.
        running.append(tasks.create_task(_start(informers, running, watching, tasks)))

    @kopf.on.cleanup(registry=registry)
    async def end(**_: Any) -> None:
        for task in running:
            task.cancel()

    await kopf.operator(
        registry=registry,
        settings=_settings(request_timeout_seconds),
        standalone=True,
        clusterwide=True,
        stop_flag=stop,
    )


def stop_at_signals(stop: asyncio.Event) -> None:
    """Set `stop` at SIGINT and SIGTERM."""
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)


async def _start(
    informers: Sequence[Sequence[Informer]],
    running: list[asyncio.Task[None]],
    watching: asyncio.Event,
    tasks: asyncio.TaskGroup,
) -> None:
    for group in informers:
        running.extend(tasks.create_task(informer.run()) for informer in group)
        for informer in group:
            await informer.listed.wait()
    watching.set()


def _settings(request_timeout_seconds: float) -> kopf.OperatorSettings:
    """Kopf's settings: no writes, no peering, no scanning of CRDs and namespaces."""
    configured = kopf.OperatorSettings()
    configured.posting.enabled = False
    configured.scanning.disabled = True
    configured.process.ultimate_exiting_timeout = END_SECONDS
    configured.networking.request_timeout = request_timeout_seconds
    return configured
