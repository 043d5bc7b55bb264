"""A Pod that reports to the progress endpoint, and the API server's answers about it."""

from __future__ import annotations

import json
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from aiohttp.test_utils import TestClient

from finetune_operator.core.references import ObjectKey
from finetune_operator.progress.sent_reports import SentReports
from finetune_operator.progress.store import ProgressStore, ShownProgress
from finetune_operator.progress.traffic import TrafficStore
from tests.unit.operator.fake_kube import FakeKube
from tests.unit.operator.pod_objects import controlled_by

REVIEWS, POD_PATH = "POST /apis/authentication.k8s.io/v1/tokenreviews", "GET /api/v1/namespaces/team-a/pods/pod-0"
ATTEMPT, OWNER = "router-train-1", ObjectKey("FineTuneJob", "team-a", "router")
PATH = f"/v1alpha1/namespaces/team-a/finetunejobs/router/attempts/{ATTEMPT}"
ISSUER = "https://kubernetes.default.svc.cluster.local"
CLAIMS = {
    "aud": ["finetune.dev/progress"],
    "iss": ISSUER,
    "exp": 4_000_000_000,
    "sub": "system:serviceaccount:team-a:x",
}


def token(claims: Any = CLAIMS, signature: str = "c2ln") -> str:
    """A JSON Web Token, signed by nobody."""
    return ".".join([part(b'{"alg":"RS256"}'), part(json.dumps(claims).encode()), signature])


def part(content: bytes) -> str:
    return urlsafe_b64encode(content).decode().rstrip("=")


TOKEN = token()
REVIEW = {
    "status": {
        "authenticated": True,
        "audiences": ["finetune.dev/progress"],
        "user": {
            "username": "system:serviceaccount:team-a:default",
            "extra": {
                "authentication.kubernetes.io/pod-name": ["pod-0"],
                "authentication.kubernetes.io/pod-uid": ["uid-of-pod-0"],
            },
        },
    }
}
POD = {
    "metadata": {
        "name": "pod-0",
        "namespace": "team-a",
        "uid": "uid-of-pod-0",
        "ownerReferences": [controlled_by("Job", ATTEMPT, "uid-of-the-job")],
    }
}
JOBS_PATH = "GET /apis/batch/v1/namespaces/team-a/jobs"
JOB = {
    "metadata": {
        "name": ATTEMPT,
        "namespace": "team-a",
        "uid": "uid-of-the-job",
        "annotations": {"finetune.dev/owner": "FineTuneJob/router"},
        "ownerReferences": [controlled_by("FineTuneJob", "router", "uid-of-router")],
    }
}
SENT = datetime(2026, 11, 22, 12, 0, 0, 123456, tzinfo=UTC)
REPORT = {
    "trainerStatus": {
        "lastUpdatedTime": SENT.isoformat(),
        "progressPercentage": 40,
        "estimatedRemainingSeconds": 90,
        "metrics": [
            {"name": "current_step", "value": "300"},
            {"name": "total_steps", "value": "750"},
            {"name": "loss", "value": "1.25"},
        ],
    }
}


@dataclass
class Endpoint:
    """The running endpoint, and what it did."""

    client: TestClient[Any, Any]
    kube: FakeKube
    store: ProgressStore
    traffic: TrafficStore
    notified: list[tuple[ObjectKey, float]] = field(default_factory=list)
    sent: SentReports = field(default_factory=SentReports)

    async def post(
        self, body: Any = REPORT, path: str = PATH, headers: Mapping[str, str] | None = None
    ) -> tuple[int, dict[str, Any]]:
        sent = body if isinstance(body, bytes) else json.dumps(body).encode()
        given = {"Authorization": f"Bearer {TOKEN}"} if headers is None else headers
        async with self.client.post(path, data=sent, headers=given) as answer:
            text = await answer.text()
            return answer.status, json.loads(text) if text.startswith("{") else {"error": text}

    def shown(self) -> ShownProgress | None:
        return self.store.shown("team-a", ATTEMPT)
