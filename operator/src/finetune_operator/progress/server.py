"""Progress reports from Pods that train or evaluate: the HTTPS endpoint, and who may report.

A report is kept in memory only: losing it loses nothing, since each says everything (step, speed, committed
checkpoints), and the termination message is the truth about the end.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from aiohttp import web
from pydantic import ValidationError

from finetune_api.base import whole_seconds
from finetune_api.finetunejob import Progress
from finetune_api.progress import (
    PROGRESS_BODY_BYTES,
    ProgressReport,
    to_progress,
)
from finetune_operator.core.references import ObjectKey
from finetune_operator.kube.errors import ApiError
from finetune_operator.progress.endpoint import REPORT_PATH, REPORTING
from finetune_operator.progress.rate_limit import RateLimiter
from finetune_operator.progress.store import ProgressStore, ShownProgress
from finetune_operator.progress.tokens import TokenAuthenticator

REPORTS_PER_SECOND, REPORTS_BURST = 20.0, 100
"""Of one address. A Pod sends a report every few seconds."""
CLOCK_SKEW = timedelta(minutes=1)
"""The clocks of a cluster differ by less, and a report arrives sooner."""


def application(
    authenticator: TokenAuthenticator, store: ProgressStore, notify: Callable[[ObjectKey, float], None]
) -> web.Application:
    """The web application. `notify(owner, delay_seconds)` asks for a reconciliation of the owner."""

    senders = RateLimiter(REPORTS_PER_SECOND, REPORTS_BURST)

    async def report(request: web.Request) -> web.Response:
        if not senders.allows(request.remote or ""):
            return _answer(429, "too many requests from this address")
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            return _answer(401, "a bearer token is required")
        try:
            reporter = await authenticator.reporter(token, request.remote or "")
        except ApiError as error:
            return _answer(503, f"the token can't be reviewed now: {error.status}")
        if reporter is None:
            return _answer(401, "the token is not valid for this endpoint")
        claimed = tuple(request.match_info[part] for part in ("namespace", "plural", "name", "attempt"))
        owner = reporter.owner
        if claimed != (reporter.namespace, REPORTING[owner.kind], owner.name, reporter.attempt):
            return _answer(403, "a Pod can report only for its own job")
        try:
            said = ProgressReport.read(await request.read())
            progress = _dated(to_progress(said.trainer_status), datetime.now(UTC))
            reported = ShownProgress(progress, said.ledger, said.candidates)
        except ValidationError as error:
            return _answer(400, f"not a progress report: {error.error_count()} errors")
        if reported != ShownProgress():
            notify(owner, store.put(reporter.namespace, reporter.attempt, reported))
        return web.json_response({})

    app = web.Application(client_max_size=PROGRESS_BODY_BYTES)
    app.router.add_post(REPORT_PATH, report)
    return app


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
