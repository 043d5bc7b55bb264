"""Who asks, and what they may do in the namespace: Kubernetes' own accounts and RBAC."""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

from finetune_openai.auth.api_keys import KEY_PREFIX, account_of
from finetune_openai.errors import RefusedError
from finetune_operator.kube.client import Kube
from finetune_operator.kube.resources import TOKEN_REVIEWS, Object, Resource
from finetune_operator.rate_limit import RateLimiter

AUDIENCE = "finetune.dev/openai"
LOCAL_SUBJECT_ACCESS_REVIEWS = Resource(
    "authorization.k8s.io/v1", "LocalSubjectAccessReview", "localsubjectaccessreviews"
)
Key = TypeVar("Key")
Value = TypeVar("Value")
Verb = Literal["get", "list", "create", "update", "delete"]

_LONGEST_TOKEN = 16_384
_TRUSTED_SECONDS, _REFUSED_SECONDS, _ALLOWED_SECONDS = 60.0, 30.0, 15.0
_MOST_KEPT = 10_000
_REVIEWS_PER_SECOND, _REVIEWS_BURST = 5.0, 50
"""Of one address: tokens that were not seen before."""


@dataclass(frozen=True)
class Caller:
    """Whose token a request carries, as the API server says."""

    user: str
    uid: str
    groups: tuple[str, ...]


class Access:
    """Reviews tokens and permissions. An answer holds for a while: a poll costs the API server nothing."""

    def __init__(self, kube: Kube, namespace: str, keys: Path | None = None) -> None:
        """`keys`: a folder as the Secret with the digests of API keys is mounted (api_keys.py)."""
        self._kube = kube
        self._keys = keys
        self._namespace = namespace
        self._callers: OrderedDict[bytes, tuple[float, Caller | None]] = OrderedDict()
        self._allowed: OrderedDict[tuple[Caller, Verb], tuple[float, bool]] = OrderedDict()
        self._reviews = RateLimiter(_REVIEWS_PER_SECOND, _REVIEWS_BURST)

    async def caller(self, headers: Mapping[str, str], address: str) -> Caller:
        """Who sends a request with these headers. Raises RefusedError (401, 429), ApiError."""
        token = _token(headers)
        if not token or len(token) > _LONGEST_TOKEN:
            raise RefusedError(
                401,
                "You didn't provide an API key. Provide a ServiceAccount's token as the key (Authorization: Bearer).",
            )
        fingerprint = hashlib.sha256(token.encode(errors="surrogateescape")).digest()
        expires, known = self._callers.get(fingerprint, (0.0, None))
        if time.monotonic() >= expires:
            if not self._reviews.allows(address):
                raise RefusedError(429, "Too many unknown API keys from this address.", code="rate_limit_exceeded")
            known = self._of_key(token) if token.startswith(KEY_PREFIX) else await self._review(token)
            kept = _REFUSED_SECONDS if known is None else _TRUSTED_SECONDS
            _keep(self._callers, fingerprint, (time.monotonic() + kept, known))
        if known is None:
            raise RefusedError(401, "Incorrect API key provided.", code="invalid_api_key")
        return known

    async def require(self, caller: Caller, verb: Verb) -> None:
        """Raises RefusedError (403) unless the caller may do this to FineTuneJobs of the namespace; ApiError."""
        expires, allowed = self._allowed.get((caller, verb), (0.0, False))
        if time.monotonic() >= expires:
            allowed = await self._may(caller, verb)
            _keep(self._allowed, (caller, verb), (time.monotonic() + _ALLOWED_SECONDS, allowed))
        if not allowed:
            raise RefusedError(
                403,
                f"You have insufficient permissions for this operation: it needs the verb {verb} on finetunejobs.",
                code="insufficient_permissions",
            )

    def _of_key(self, key: str) -> Caller | None:
        account = None if self._keys is None else account_of(key, self._keys)
        if account is None:
            return None
        groups = ("system:serviceaccounts", f"system:serviceaccounts:{self._namespace}", "system:authenticated")
        return Caller(f"system:serviceaccount:{self._namespace}:{account}", "", groups)

    async def _review(self, token: str) -> Caller | None:
        body = _of_kind(TOKEN_REVIEWS) | {"spec": {"token": token, "audiences": [AUDIENCE]}}
        status = (await self._kube.create(TOKEN_REVIEWS, None, body)).get("status", {})
        if not status.get("authenticated") or AUDIENCE not in status.get("audiences", []):
            return None
        user = status.get("user", {})
        return Caller(user.get("username", ""), user.get("uid", ""), tuple(user.get("groups", ())))

    async def _may(self, caller: Caller, verb: Verb) -> bool:
        attributes = {"namespace": self._namespace, "group": "finetune.dev", "resource": "finetunejobs", "verb": verb}
        body = _of_kind(LOCAL_SUBJECT_ACCESS_REVIEWS) | {
            "metadata": {"namespace": self._namespace},
            "spec": {
                "user": caller.user,
                "uid": caller.uid,
                "groups": list(caller.groups),
                "resourceAttributes": attributes,
            },
        }
        answer = await self._kube.create(LOCAL_SUBJECT_ACCESS_REVIEWS, self._namespace, body)
        return answer.get("status", {}).get("allowed") is True


def _of_kind(resource: Resource) -> Object:
    return {"apiVersion": resource.api_version, "kind": resource.kind}


def _token(headers: Mapping[str, str]) -> str:
    """The key of a request: OpenAI's header, or Azure's."""
    scheme, _, token = headers.get("Authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else headers.get("api-key", "").strip()


def _keep(kept: OrderedDict[Key, Value], key: Key, value: Value) -> None:
    kept[key] = value
    kept.move_to_end(key)
    if len(kept) > _MOST_KEPT:
        kept.popitem(last=False)
