"""The progress endpoint that runs for a test."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from functools import partial

import pytest
from aiohttp.test_utils import TestClient, TestServer

from finetune_operator.core.references import ObjectKey
from finetune_operator.kube.resources import EVALUATIONS
from finetune_operator.progress import server
from finetune_operator.progress.sent_reports import SentReports
from finetune_operator.progress.store import ProgressStore
from finetune_operator.progress.tokens import TokenAuthenticator
from finetune_operator.progress.traffic import TrafficStore
from tests.unit.operator.fake_kube import FakeKube
from tests.unit.operator.progress.reporting import JOB, JOBS_PATH, POD, POD_PATH, REVIEW, REVIEWS, Endpoint


@pytest.fixture
async def endpoint(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Endpoint]:
    monkeypatch.setattr(server, "CLOCK_SKEW", timedelta.max)
    kube, store = FakeKube({REVIEWS: REVIEW, POD_PATH: POD, JOBS_PATH: {"items": [JOB]}}), ProgressStore()
    notified: list[tuple[ObjectKey, float]] = []
    traffic = TrafficStore()
    sent = SentReports()
    app = server.application(
        TokenAuthenticator(kube),
        store,
        sent,
        lambda owner, delay: notified.append((owner, round(delay, 1))),
        partial(kube.get, EVALUATIONS),
        traffic,
    )
    async with TestClient(TestServer(app)) as client:
        yield Endpoint(client, kube, store, traffic, notified, sent)
