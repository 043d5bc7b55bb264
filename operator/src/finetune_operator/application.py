"""The running operator: watches, workers, resync, metrics and the progress endpoint, in one task group."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Mapping
from functools import partial
from typing import Any

import kopf
import structlog
from aiohttp import web
from kubernetes.aio import config
from kubernetes.aio.client import ApiClient
from prometheus_client import start_http_server

from finetune_api.crd import EVALUATION, FINE_TUNE_CLASS, FINE_TUNE_JOB, MODEL_DEPLOYMENT
from finetune_api.evaluation import EvaluationStatus
from finetune_api.finetuneclass import FineTuneClassStatus
from finetune_api.finetunejob import FineTuneJobStatus
from finetune_api.modeldeployment import ModelDeploymentStatus
from finetune_operator import evaluation, finetuneclass, finetunejob, metrics, modeldeployment, progress, watches
from finetune_operator.controller import STUCK_AFTER_SECONDS, Heartbeats, work
from finetune_operator.kube import EVALUATIONS, FINE_TUNE_CLASSES, FINE_TUNE_JOBS, MODEL_DEPLOYMENTS, ApiError, Kube
from finetune_operator.reconcile import Reconciler
from finetune_operator.references import ObjectKey, References
from finetune_operator.settings import Settings
from finetune_operator.workqueue import WorkQueue

CERTIFICATE_SECONDS = 3600.0
"""A renewed certificate is served at most this much later."""

log = structlog.get_logger(__name__)


async def run(settings: Settings, stop: asyncio.Event | None = None) -> None:
    """Run until SIGTERM, SIGINT or `stop`, or until a part fails (the process then ends, and is started again)."""
    if settings.kubeconfig is not None:
        # Kopf's own client reads the same variable.
        os.environ["KUBECONFIG"] = str(settings.kubeconfig)
        await config.load_kube_config(config_file=str(settings.kubeconfig))
    else:
        config.load_incluster_config()
    async with ApiClient() as api:
        kube = Kube(api)
        queue: WorkQueue[ObjectKey] = WorkQueue()
        store = progress.ProgressStore()
        heartbeats = Heartbeats()
        table = reconcilers(settings.trainer_image, store, progress_endpoint(settings))
        start_http_server(settings.metrics_port)
        metrics.QUEUE_DEPTH.set_function(lambda: len(queue))
        async with asyncio.TaskGroup() as tasks:
            running = [
                tasks.create_task(work(number, queue, kube, table, heartbeats), name=f"worker-{number}")
                for number in range(settings.workers)
            ]
            running.append(tasks.create_task(_resync(settings, kube, table, queue), name="resync"))
            if settings.progress_url is not None:
                running.append(tasks.create_task(_serve_progress(settings, kube, store, queue), name="progress"))
            await _watch(settings, queue, heartbeats, stop)
            for task in running:
                task.cancel()


def reconcilers(
    trainer_image: str | None, store: progress.ProgressStore, endpoint: progress.ProgressEndpoint | None
) -> Mapping[str, Reconciler]:
    """How each kind is reconciled."""
    observe_job = partial(finetunejob.observe.observe, trainer_image=trainer_image, progress=store, endpoint=endpoint)
    observe_evaluation = partial(evaluation.observe.observe, trainer_image=trainer_image)
    observe_deployment = partial(modeldeployment.observe.observe, trainer_image=trainer_image)
    return {
        FINE_TUNE_CLASS.name: Reconciler(
            FINE_TUNE_CLASSES, FineTuneClassStatus, finetuneclass.observe, finetuneclass.plan
        ),
        FINE_TUNE_JOB.name: Reconciler(FINE_TUNE_JOBS, FineTuneJobStatus, observe_job, finetunejob.plan.plan),
        EVALUATION.name: Reconciler(EVALUATIONS, EvaluationStatus, observe_evaluation, evaluation.plan.plan),
        MODEL_DEPLOYMENT.name: Reconciler(
            MODEL_DEPLOYMENTS, ModelDeploymentStatus, observe_deployment, modeldeployment.plan.plan
        ),
    }


def progress_endpoint(settings: Settings) -> progress.ProgressEndpoint | None:
    """What Pods need to report, if this operator can be reached by them."""
    if settings.progress_url is None:
        return None
    assert settings.tls_directory is not None
    return progress.ProgressEndpoint(settings.progress_url, (settings.tls_directory / "ca.crt").read_text())


async def _watch(
    settings: Settings, queue: WorkQueue[ObjectKey], heartbeats: Heartbeats, stop: asyncio.Event | None
) -> None:
    registry = kopf.OperatorRegistry()
    watches.register(registry, queue, References())

    @kopf.on.login(registry=registry)
    def login(**kwargs: Any) -> kopf.ConnectionInfo | None:
        return kopf.login_with_kubeconfig(**kwargs) or kopf.login_with_service_account(**kwargs)

    @kopf.on.probe(registry=registry, id="workers", errors=kopf.ErrorsMode.PERMANENT)
    def workers_alive(**_: Any) -> str:
        longest, oldest = heartbeats.longest_seconds(), queue.oldest_wait_seconds()
        if max(longest, oldest) > STUCK_AFTER_SECONDS:
            raise kopf.PermanentError(f"a worker is stuck: {longest:.0f} s at one object, {oldest:.0f} s of waiting")
        return "ok"

    await kopf.operator(
        registry=registry,
        settings=watches.settings(),
        standalone=True,
        clusterwide=True,
        liveness_endpoint=f"http://0.0.0.0:{settings.health_port}/healthz",
        stop_flag=stop,
    )


async def _resync(settings: Settings, kube: Kube, table: Mapping[str, Reconciler], queue: WorkQueue[ObjectKey]) -> None:
    """Look at every object again now and then, spread over the interval: events are hints, and hints get lost."""
    while True:
        await asyncio.sleep(settings.resync_seconds)
        for kind, reconciler in table.items():
            try:
                items = await kube.list(reconciler.resource)
            except ApiError as error:
                log.warning("resync failed", kind=kind, error=str(error))
                continue
            for item in items:
                metadata = item["metadata"]
                key = ObjectKey(kind, metadata.get("namespace", ""), metadata["name"])
                queue.add_after(key, random.uniform(0, settings.resync_seconds))


async def _serve_progress(
    settings: Settings, kube: Kube, store: progress.ProgressStore, queue: WorkQueue[ObjectKey]
) -> None:
    assert settings.tls_directory is not None
    app = progress.application(progress.TokenAuthenticator(kube), store, queue.add_after)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    tls = progress.server_tls(settings.tls_directory)
    await web.TCPSite(runner, port=settings.progress_port, ssl_context=tls).start()
    log.info("progress endpoint", port=settings.progress_port)
    try:
        while True:
            await asyncio.sleep(CERTIFICATE_SECONDS)
            progress.load_certificate(tls, settings.tls_directory)
    finally:
        await runner.cleanup()
