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
    PROGRESS_AUDIENCE,
    PROGRESS_BODY_BYTES,
    CheckpointLedger,
    ProgressReport,
    to_progress,
)
from finetune_operator.children import Owner, controller, owner_key
from finetune_operator.kube import JOBS, PODS, TOKEN_REVIEWS, ApiError, Kube, Object
from finetune_operator.references import ObjectKey

STATUS_INTERVAL_SECONDS = 10.0
_ATTEMPTS_KEPT = 10_000
_TOKENS_KEPT = 10_000
_TOKEN_TRUSTED_SECONDS = 300.0
_POD_NAME = "authentication.kubernetes.io/pod-name"
_POD_UID = "authentication.kubernetes.io/pod-uid"
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


@dataclass(frozen=True)
class Reporter:
    """Who a token speaks for: a Pod of an attempt."""

    namespace: str
    attempt: str
    owner: ObjectKey


class TokenAuthenticator:
    """Finds the Pod behind a bearer token by TokenReview; an accepted token is trusted for five minutes."""

    def __init__(self, kube: Kube) -> None:
        self._kube = kube
        self._trusted: OrderedDict[bytes, tuple[float, Reporter]] = OrderedDict()

    async def reporter(self, token: str) -> Reporter | None:
        """Whose token this is; None when it is not valid for our audience or not a training Pod's."""
        fingerprint = hashlib.sha256(token.encode()).digest()
        expires, known = self._trusted.get(fingerprint, (0.0, None))
        if known is not None and time.monotonic() < expires:
            return known
        found = await self._review(token)
        if found is not None:
            self._trusted[fingerprint] = (time.monotonic() + _TOKEN_TRUSTED_SECONDS, found)
            if len(self._trusted) > _TOKENS_KEPT:
                self._trusted.popitem(last=False)
        return found

    async def _review(self, token: str) -> Reporter | None:
        body = {
            "apiVersion": TOKEN_REVIEWS.api_version,
            "kind": TOKEN_REVIEWS.kind,
            "spec": {"token": token, "audiences": [PROGRESS_AUDIENCE]},
        }
        status = (await self._kube.create(TOKEN_REVIEWS, None, body)).get("status", {})
        if not status.get("authenticated") or PROGRESS_AUDIENCE not in status.get("audiences", []):
            return None
        user = status.get("user", {})
        # system:serviceaccount:<namespace>:<name>
        parts = user.get("username", "").split(":")
        extra = user.get("extra", {})
        pod_name, pod_uid = extra.get(_POD_NAME, [""])[0], extra.get(_POD_UID, [""])[0]
        if len(parts) != 4 or parts[:2] != ["system", "serviceaccount"] or not pod_name:
            return None
        pod = await self._kube.get(PODS, parts[2], pod_name)
        if pod is None or pod["metadata"]["uid"] != pod_uid:
            return None
        return await self._of_job(parts[2], pod)

    async def _of_job(self, namespace: str, pod: Object) -> Reporter | None:
        """Whose Pod this is, by its Job's owner: what a Pod says of itself proves nothing."""
        by = controller(pod)
        if by is None or by.kind != JOBS.kind:
            return None
        found = await self._kube.list(JOBS, namespace, fields={"metadata.name": by.name})
        job = next((job for job in found if job["metadata"]["uid"] == by.uid), None)
        parent = controller(job) if job is not None else None
        owner = owner_key(job) if job is not None else None
        if parent is None or owner is None or (parent.kind, parent.name) != (owner.kind, owner.name):
            return None
        return Reporter(namespace, by.name, owner)


def application(
    authenticator: TokenAuthenticator, store: ProgressStore, notify: Callable[[ObjectKey, float], None]
) -> web.Application:
    """The web application. `notify(owner, delay_seconds)` asks for a reconciliation of the job."""

    async def report(request: web.Request) -> web.Response:
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            return _answer(401, "a bearer token is required")
        try:
            reporter = await authenticator.reporter(token)
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
