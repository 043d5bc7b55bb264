"""Whose token a progress report carries."""

from __future__ import annotations

import binascii
import hashlib
import json
import time
from base64 import urlsafe_b64decode
from collections import OrderedDict
from dataclasses import dataclass

from finetune_api.pod_contracts.progress import PROGRESS_AUDIENCE
from finetune_operator.core.ownership import OWNER_UID_LABEL, ROLE_LABEL, Controller, controller, owner_key
from finetune_operator.core.references import ObjectKey
from finetune_operator.kube.client import Kube
from finetune_operator.kube.errors import ApiError
from finetune_operator.kube.resources import (
    DEPLOYMENTS,
    FINE_TUNE_JOBS,
    JOBS,
    MODEL_DEPLOYMENTS,
    PODS,
    REPLICA_SETS,
    TOKEN_REVIEWS,
    Object,
)
from finetune_operator.pods.roles import GATEWAY_ROLE
from finetune_operator.progress.endpoint import REPORTING
from finetune_operator.rate_limit import RateLimiter

REVIEWS_PER_SECOND, REVIEWS_BURST = 20.0, 100
"""The limit of TokenReviews, for all addresses together."""
REVIEWS_PER_SECOND_OF_ONE, REVIEWS_BURST_OF_ONE = 1.0, 10
"""The limit for one address. A Pod has one token at a time, renewed about hourly; a few Pods may share their node's."""
_TOKENS_KEPT = 10_000
_TRUSTED_SECONDS = 300.0
_REFUSED_SECONDS = 60.0
_LONGEST_TOKEN = 8192
_POD_NAME = "authentication.kubernetes.io/pod-name"
_POD_UID = "authentication.kubernetes.io/pod-uid"


def may_be_ours(token: str, issuer: str | None, now: float) -> bool:
    """Whether the unverified claims of a token are those of a Pod's token for this endpoint.

    `now` is Unix time; `issuer` is None if it is unknown.
    """
    claims = _claims(token)
    audiences, expires = claims.get("aud"), claims.get("exp")
    if PROGRESS_AUDIENCE not in (audiences if isinstance(audiences, list) else [audiences]):
        return False
    if not isinstance(expires, int | float) or expires <= now:
        return False
    return issuer is None or claims.get("iss") == issuer


def _claims(token: str) -> Object:
    """The claims of a JSON Web Token (RFC 7519), unverified; empty for anything else."""
    parts = token.split(".")
    if len(parts) != 3 or len(token) > _LONGEST_TOKEN or not token.isascii():
        return {}
    try:
        claims = json.loads(urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except (binascii.Error, ValueError, RecursionError):
        return {}
    return claims if isinstance(claims, dict) else {}


@dataclass(frozen=True)
class Reporter:
    """Who a token speaks for: a Pod of a Job, or of a gateway; `attempt`: the name of the Job, or the Deployment."""

    namespace: str
    attempt: str
    owner: ObjectKey


def _gateway_labels(item: Object) -> dict[str, str]:
    labels = item["metadata"].get("labels") or {}
    return {name: labels[name] for name in (OWNER_UID_LABEL, ROLE_LABEL) if name in labels}


class TokenAuthenticator:
    """Finds the Pod behind a bearer token by TokenReview.

    A token whose claims don't fit is rejected without a request. Accepted tokens are cached for five minutes, rejected
    ones for one. Requests to the API server are limited, in total and for each address.
    """

    def __init__(self, kube: Kube) -> None:
        self._kube = kube
        self._known: OrderedDict[bytes, tuple[float, Reporter | None]] = OrderedDict()
        self._issuer: tuple[float, str | None] = (0.0, None)
        self._reviews = RateLimiter(REVIEWS_PER_SECOND, REVIEWS_BURST)
        self._reviews_of_one = RateLimiter(REVIEWS_PER_SECOND_OF_ONE, REVIEWS_BURST_OF_ONE)

    async def reporter(self, token: str, address: str) -> Reporter | None:
        """Whose token this is; None when it is not valid for our audience or not that of a Pod that reports.

        Raises ApiError (429 above the limits).
        """
        fingerprint = hashlib.sha256(token.encode(errors="surrogateescape")).digest()
        expires, known = self._known.get(fingerprint, (0.0, None))
        if time.monotonic() < expires:
            return known
        if not may_be_ours(token, await self._expected_issuer(), time.time()):
            return None
        # The address first: what exceeds its limit does not use up the common one.
        if not (self._reviews_of_one.allows(address) and self._reviews.allows("")):
            raise ApiError(429, "TooManyRequests", "too many token reviews")
        found = await self._review(token)
        kept = _TRUSTED_SECONDS if found is not None else _REFUSED_SECONDS
        self._known[fingerprint] = (time.monotonic() + kept, found)
        self._known.move_to_end(fingerprint)
        if len(self._known) > _TOKENS_KEPT:
            self._known.popitem(last=False)
        return found

    async def _expected_issuer(self) -> str | None:
        """Who signs this cluster's tokens; None if the API server does not say."""
        expires, issuer = self._issuer
        if time.monotonic() >= expires:
            issuer = await self._kube.token_issuer()
            self._issuer = (time.monotonic() + _TRUSTED_SECONDS, issuer)
        return issuer

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
        by = controller(pod)
        if by is not None and by.kind == REPLICA_SETS.kind:
            return await self._of_gateway(parts[2], pod, by)
        return await self._of_job(parts[2], pod)

    async def _of_gateway(self, namespace: str, pod: Object, by: Controller) -> Reporter | None:
        """Whose gateway this is, by the Deployment that its ReplicaSet is of, and which a ModelDeployment controls."""
        if _gateway_labels(pod).get(ROLE_LABEL) != GATEWAY_ROLE:
            return None
        sets = await self._kube.list(REPLICA_SETS, namespace, fields={"metadata.name": by.name})
        of = next((controller(one) for one in sets if one["metadata"]["uid"] == by.uid), None)
        if of is None or of.kind != DEPLOYMENTS.kind:
            return None
        deployment = await self._kube.get(DEPLOYMENTS, namespace, of.name)
        if deployment is None or deployment["metadata"]["uid"] != of.uid:
            return None
        parent, owner = controller(deployment), owner_key(deployment, {MODEL_DEPLOYMENTS.kind})
        if parent is None or owner is None or (parent.kind, parent.name) != (owner.kind, owner.name):
            return None
        # A Pod may name any owner; these labels are the operator's alone (childrenpolicy.yaml).
        ours = {OWNER_UID_LABEL: parent.uid, ROLE_LABEL: GATEWAY_ROLE}
        if any(_gateway_labels(one) != ours for one in (pod, deployment)):
            return None
        return Reporter(namespace, of.name, owner)

    async def _of_job(self, namespace: str, pod: Object) -> Reporter | None:
        """Whose Pod this is, by its Job's owner: what a Pod says of itself proves nothing."""
        by = controller(pod)
        if by is None or by.kind != JOBS.kind:
            return None
        found = await self._kube.list(JOBS, namespace, fields={"metadata.name": by.name})
        job = next((job for job in found if job["metadata"]["uid"] == by.uid), None)
        if job is None:
            return await self._of_gone_job(pod, by)
        parent = controller(job)
        owner = owner_key(job, REPORTING.keys())
        if parent is None or owner is None or (parent.kind, parent.name) != (owner.kind, owner.name):
            return None
        return Reporter(namespace, by.name, owner)

    async def _of_gone_job(self, pod: Object, by: Controller) -> Reporter | None:
        """Whose Pod this is where its Job was deleted: it saves, and reports, until it ends.

        It is that of the FineTuneJob whose status says that this Job, by its UID, was its newest attempt's.
        """
        owner = owner_key(pod, {FINE_TUNE_JOBS.kind})
        parent = await self._kube.get(FINE_TUNE_JOBS, owner.namespace, owner.name) if owner is not None else None
        if owner is None or parent is None:
            return None
        attempt = parent.get("status", {}).get("attempt") or {}
        if (attempt.get("jobName"), attempt.get("jobUid")) != (by.name, by.uid):
            return None
        return Reporter(owner.namespace, by.name, owner)
