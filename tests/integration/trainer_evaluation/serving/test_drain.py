"""A server that is to go fails no request: neither one that it has begun, nor one that is on its way to it."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
import requests

from tests.integration.trainer_evaluation.serving.served import NAME, STOP_SECONDS, Hub, serving

LONGER_THAN_THE_TEST_SECONDS = 600


def test_a_stream_that_has_begun_is_completed(tuned: Path, tmp_path: Path, hub: Hub) -> None:
    with serving(tuned, tmp_path, hub) as server:
        body = {"model": NAME, "prompt": "x", "max_tokens": 100, "stream": True, "temperature": 1.5, "seed": 3}
        whole = requests.post(f"{server.url}/v1/completions", json=body, timeout=30).text
        response = requests.post(f"{server.url}/v1/completions", json=body, timeout=30, stream=True)
        chunks = response.iter_content(None)
        begun = next(chunks)
        server.process.send_signal(signal.SIGTERM)
        text = (begun + b"".join(chunks)).decode()
        assert text.endswith("data: [DONE]\n\n")
        assert text.count("data: ") == whole.count("data: ")
        assert server.process.wait(STOP_SECONDS) == 0


def test_requests_that_are_on_their_way_are_still_answered(tuned: Path, tmp_path: Path, hub: Hub) -> None:
    with serving(tuned, tmp_path, hub, linger_seconds=LONGER_THAN_THE_TEST_SECONDS) as server:
        server.process.send_signal(signal.SIGTERM)
        with pytest.raises(Exception, match="timed out"):
            server.process.wait(1)
        assert [server.ask("hello")[0] for _ in range(3)] == [200] * 3
