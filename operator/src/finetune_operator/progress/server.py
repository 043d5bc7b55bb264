"""Progress reports from training Pods: the HTTPS endpoint, who may report, and the newest report of each attempt.

A report is kept in memory only: losing it loses nothing, since each says everything (step, speed, committed
checkpoints), and the termination message is the truth about the end.
"""

from __future__ import annotations

import hashlib
import ssl
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from aiohttp import web
from pydantic import ValidationError

from finetune_api.finetunejob import Progress
from finetune_api.progress import (
    PROGRESS_BODY_BYTES,
    CheckpointLedger,
    ProgressReport,
    to_progress,
)
from finetune_operator.core.ownership import Owner
from finetune_operator.core.references import ObjectKey
from finetune_operator.kube.client import ApiError
from finetune_operator.progress.rate_limit import Rates
from finetune_operator.progress.tokens import TokenAuthenticator

STATUS_INTERVAL_SECONDS = 10.0
REPORTS_A_SECOND, REPORTS_AT_ONCE = 20.0, 100
"""Of one address. A Pod sends one every few seconds."""
_ATTEMPTS_KEPT = 10_000
_PATH = "/v1alpha1/namespaces/{namespace}/finetunejobs/{name}/attempts/{attempt}"


@dataclass(frozen=True)
class ProgressEndpoint:
    """How Pods reach this operator: base URL and the PEM of the CA that signed its certificate."""

    url: str
    ca: str

    @property
    def digest(self) -> str:
        """Changes with the address or the CA: Pods that were made before report in vain."""
        return hashlib.sha256(f"{self.url}\n{self.ca}".encode()).hexdigest()[:16]

    def url_for(self, owner: Owner, attempt: str) -> str:
        """Where the Pods of an attempt report to."""
        path = _PATH.format(namespace=owner.namespace, name=owner.name, attempt=attempt)
        return self.url.rstrip("/") + path


@dataclass(frozen=True)
class ShownProgress:
    """What the reports of an attempt say, as its job's status shows it."""

    progress: Progress | None = None
    ledger: CheckpointLedger | None = None
    """None: its Pods keep none (a user's own image)."""


@dataclass
class _Reports:
    """Of one attempt: what is shown, since when, and the newest."""

    shown: ShownProgress
    shown_since: float
    newest: ShownProgress


class ProgressStore:
    """The reports of each attempt, by the name of its Job; bounded, the least recently updated goes first.

    What is shown changes at most every ten seconds, however often a Pod reports and a job is looked at.
    """

    def __init__(self) -> None:
        self._reports: OrderedDict[tuple[str, str], _Reports] = OrderedDict()

    def put(
        self, namespace: str, attempt: str, progress: Progress | None, ledger: CheckpointLedger | None = None
    ) -> float:
        """Remember a report; returns in how many seconds it can be shown. None: it says nothing about that."""
        now, key = time.monotonic(), (namespace, attempt)
        reports = self._reports.get(key)
        if reports is None:
            first = ShownProgress(progress, ledger)
            reports = self._reports[key] = _Reports(first, now, first)
        else:
            before = reports.newest
            reports.newest = ShownProgress(progress or before.progress, ledger or before.ledger)
        self._reports.move_to_end(key)
        if len(self._reports) > _ATTEMPTS_KEPT:
            self._reports.popitem(last=False)
        return 0.0 if reports.shown == reports.newest else max(0.0, reports.shown_since + STATUS_INTERVAL_SECONDS - now)

    def shown(self, namespace: str, attempt: str) -> ShownProgress | None:
        """What to show of an attempt, if a report came since the operator started."""
        reports = self._reports.get((namespace, attempt))
        if reports is None:
            return None
        if reports.shown != reports.newest and time.monotonic() >= reports.shown_since + STATUS_INTERVAL_SECONDS:
            reports.shown, reports.shown_since = reports.newest, time.monotonic()
        return reports.shown


def application(
    authenticator: TokenAuthenticator, store: ProgressStore, notify: Callable[[ObjectKey, float], None]
) -> web.Application:
    """The web application. `notify(owner, delay_seconds)` asks for a reconciliation of the job."""

    senders = Rates(REPORTS_A_SECOND, REPORTS_AT_ONCE)

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
        claimed = (request.match_info["namespace"], request.match_info["name"], request.match_info["attempt"])
        if claimed != (reporter.namespace, reporter.owner.name, reporter.attempt):
            return _answer(403, "a Pod can report only for its own job")
        try:
            said = ProgressReport.model_validate_json(await request.read())
            progress = to_progress(said.trainer_status)
        except ValidationError as error:
            return _answer(400, f"not a progress report: {error.error_count()} errors")
        if progress is not None or said.ledger is not None:
            notify(reporter.owner, store.put(reporter.namespace, reporter.attempt, progress, said.ledger))
        return web.json_response({})

    app = web.Application(client_max_size=PROGRESS_BODY_BYTES)
    app.router.add_post(_PATH, report)
    return app


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
