"""Reports from Pods that train or evaluate: the HTTPS endpoint, and who may report.

A report of progress is kept in memory only: losing it loses nothing, since each says everything (step, speed, committed
checkpoints), and the termination message is the truth about the end. The whole report of an evaluation is sent again
until the status has it.
"""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from aiohttp import web
from pydantic import ValidationError

from finetune_api.base import whole_seconds
from finetune_api.evaluation import SENT_REPORT_BYTES, SentReport
from finetune_api.finetunejob import Progress
from finetune_api.modeldeployment import TrafficReport
from finetune_api.pod_contracts.progress import PROGRESS_BODY_BYTES, ProgressReport, to_progress
from finetune_api.pod_contracts.sent_report import SENT_REPORT_PATH, SentReportAnswer, digest_of, read_report
from finetune_operator.core.references import ObjectKey
from finetune_operator.kube.errors import ApiError
from finetune_operator.kube.resources import EVALUATIONS, MODEL_DEPLOYMENTS, Object
from finetune_operator.progress.endpoint import REPORT_PATH, REPORTING, TRAFFIC_PATH
from finetune_operator.progress.sent_reports import SentReports
from finetune_operator.progress.store import ProgressStore, ShownProgress
from finetune_operator.progress.tokens import Reporter, TokenAuthenticator
from finetune_operator.progress.traffic import TrafficStore
from finetune_operator.rate_limit import RateLimiter

REPORTS_PER_SECOND, REPORTS_BURST = 20.0, 100
"""Of one address. A Pod sends a report every few seconds."""
REPORTS_OF_ONE_PER_SECOND, REPORTS_OF_ONE_BURST = 0.1, 10
"""Whole reports of one try, each of which may be a write of its status."""
CLOCK_SKEW = timedelta(minutes=1)
"""The clocks of a cluster differ by less, and a report arrives sooner."""


def application(
    authenticator: TokenAuthenticator,
    store: ProgressStore,
    sent: SentReports,
    notify: Callable[[ObjectKey, float], None],
    find_evaluation: Callable[[str, str], Awaitable[Object | None]],
    traffic: TrafficStore,
) -> web.Application:
    """The web application. `notify(owner, delay_seconds)` asks for a reconciliation of the owner.

    `find_evaluation(namespace, name)`: as the API server has it.
    """
    senders = RateLimiter(REPORTS_PER_SECOND, REPORTS_BURST)
    tries = RateLimiter(REPORTS_OF_ONE_PER_SECOND, REPORTS_OF_ONE_BURST)

    async def sender_of(request: web.Request) -> Reporter | web.Response:
        return await _sender(request, senders, authenticator)

    async def progress(request: web.Request) -> web.Response:
        reporter = await sender_of(request)
        return reporter if isinstance(reporter, web.Response) else await _progress(request, reporter, store, notify)

    async def report(request: web.Request) -> web.Response:
        reporter = await sender_of(request)
        if isinstance(reporter, web.Response):
            return reporter
        if reporter.owner.kind != EVALUATIONS.kind:
            return _answer(403, "only the Pod of an Evaluation sends its report")
        if not tries.allows(f"{reporter.namespace}/{reporter.attempt}"):
            return _answer(429, "too many reports of this try")
        return await _report(request, reporter, sent, notify, find_evaluation)

    async def counts(request: web.Request) -> web.Response:
        reporter = await _authenticated(request, senders, authenticator)
        if isinstance(reporter, web.Response):
            return reporter
        return _traffic(request, reporter.owner, await request.read(), traffic, notify)

    app = web.Application(client_max_size=max(PROGRESS_BODY_BYTES, SENT_REPORT_BYTES))
    app.router.add_post(REPORT_PATH, progress)
    app.router.add_post(REPORT_PATH + SENT_REPORT_PATH, report)
    app.router.add_post(TRAFFIC_PATH, counts)
    return app


async def _sender(
    request: web.Request, senders: RateLimiter, authenticator: TokenAuthenticator
) -> Reporter | web.Response:
    """The Pod that sends the request, of the Job that the path names; or the refusal."""
    reporter = await _authenticated(request, senders, authenticator)
    if isinstance(reporter, web.Response):
        return reporter
    claimed = tuple(request.match_info[part] for part in ("namespace", "plural", "name", "attempt"))
    owner = reporter.owner
    if claimed != (reporter.namespace, REPORTING.get(owner.kind), owner.name, reporter.attempt):
        return _answer(403, "a Pod can report only for its own job")
    return reporter


async def _authenticated(
    request: web.Request, senders: RateLimiter, authenticator: TokenAuthenticator
) -> Reporter | web.Response:
    """The Pod that sends the request; or the refusal."""
    if not senders.allows(request.remote or ""):
        return _answer(429, "too many requests from this address")
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token:
        return _answer(401, "a bearer token is required")
    try:
        reporter = await authenticator.reporter(token, request.remote or "")
    except ApiError as error:
        return _answer(503, f"the token can't be reviewed now: {error.status}")
    return _answer(401, "the token is not valid for this endpoint") if reporter is None else reporter


async def _progress(
    request: web.Request, reporter: Reporter, store: ProgressStore, notify: Callable[[ObjectKey, float], None]
) -> web.Response:
    try:
        said = ProgressReport.read(await request.read())
        progress = _dated(to_progress(said.trainer_status), datetime.now(UTC))
        reported = ShownProgress(progress, said.ledger, said.candidates)
    except ValidationError as error:
        return _answer(400, f"not a progress report: {error.error_count()} errors")
    if reported != ShownProgress():
        notify(reporter.owner, store.put(reporter.namespace, reporter.attempt, reported))
    return web.json_response({})


async def _report(
    request: web.Request,
    reporter: Reporter,
    sent: SentReports,
    notify: Callable[[ObjectKey, float], None],
    find_evaluation: Callable[[str, str], Awaitable[Object | None]],
) -> web.Response:
    """Take the whole report of an evaluation, and say whether its status has it."""
    try:
        content = (await request.read()).decode()
        read_report(content)
    except ValueError as error:
        return _answer(400, str(error))
    report = SentReport(job_name=reporter.attempt, digest=digest_of(content), content=content)
    try:
        found = await find_evaluation(reporter.namespace, reporter.owner.name)
    except ApiError as error:
        return _answer(503, f"the Evaluation can't be read now: {error.status}")
    stored = ((found or {}).get("status") or {}).get("sentReport") == report.to_wire()
    if stored:
        sent.forget(reporter.namespace, reporter.attempt)
    else:
        sent.put(reporter.namespace, report)
        notify(reporter.owner, 0.0)
    return web.json_response(SentReportAnswer(stored=stored).to_wire())


def _traffic(
    request: web.Request,
    owner: ObjectKey,
    body: bytes,
    traffic: TrafficStore,
    notify: Callable[[ObjectKey, float], None],
) -> web.Response:
    """The answer to a gateway, once its counts are stored."""
    claimed = (request.match_info["namespace"], request.match_info["name"])
    if owner.kind != MODEL_DEPLOYMENTS.kind or claimed != (owner.namespace, owner.name):
        return _answer(403, "a gateway can report only for its own ModelDeployment")
    try:
        said = TrafficReport.model_validate_json(body, extra="ignore")
    except ValidationError as error:
        return _answer(400, f"not a report of traffic: {error.error_count()} errors")
    published = traffic.published(owner)
    if published is None:
        notify(owner, 0.0)
        return _answer(503, "the ModelDeployment has not been read yet")
    if published.split is not None and said.split == published.split["id"]:
        delay = traffic.put(owner, said)
        if delay is not None:
            notify(owner, delay)
    return web.json_response({"split": published.split, "acknowledged": published.counted.get(said.source)})


def _dated(progress: Progress | None, arrived: datetime) -> Progress | None:
    """The report, with the time of its arrival where the clock of the Pod's node is wrong."""
    if progress is None or abs(arrived - progress.last_updated_time) < CLOCK_SKEW:
        return progress
    return progress.model_copy(update={"last_updated_time": whole_seconds(arrived)})


def server_tls(folder: Path) -> ssl.SSLContext:
    """TLS of the endpoint from a folder as a kubernetes.io/tls Secret is mounted: tls.crt and tls.key."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    load_certificate(context, folder)
    return context


def load_certificate(context: ssl.SSLContext, folder: Path) -> None:
    """Serve new connections with the certificate that is in the folder now."""
    context.load_cert_chain(folder / "tls.crt", folder / "tls.key")


def _answer(status: int, message: str) -> web.Response:
    return web.json_response({"error": message}, status=status)
