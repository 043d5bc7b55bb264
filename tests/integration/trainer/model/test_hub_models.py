"""A model on a hub that can't be had: why not is told, and tried again only where that may help."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from finetune_api.conditions import Reason
from finetune_api.sources import HubModel
from finetune_trainer.model.folders import HubFolder
from finetune_trainer.process.failures import DiagnosedError
from tests.integration.trainer.data.played_hub import gated_hub, other_server, refusing_hub

MODEL = HubModel("org/model", None)


def refused(monkeypatch: pytest.MonkeyPatch, endpoint: str) -> DiagnosedError:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", endpoint)
    monkeypatch.setattr("huggingface_hub.hf_api.constants.ENDPOINT", endpoint)
    with pytest.raises(DiagnosedError) as error:
        HubFolder(MODEL).paths()
    return error.value


@pytest.mark.parametrize(
    ("status", "headers", "reason", "retryable", "words"),
    [
        (404, {"X-Error-Code": "RepoNotFound"}, Reason.MODEL_NOT_FOUND, False, "shows no hf://org/model"),
        (401, {"X-Error-Code": "RepoNotFound"}, Reason.MODEL_NOT_FOUND, False, "private and needs a token (HF_TOKEN)"),
        (401, {}, Reason.HUB_DENIED, False, "denies hf://org/model (401)"),
        (404, {"X-Error-Code": "RevisionNotFound"}, Reason.MODEL_NOT_FOUND, False, "but not this revision"),
        (
            401,
            {"X-Error-Message": "Invalid credentials in Authorization header"},
            Reason.HUB_DENIED,
            False,
            "Set a token (HF_TOKEN) that is valid",
        ),
        (403, {}, Reason.HUB_DENIED, False, "denies hf://org/model (403)"),
        (403, {"X-Error-Code": "GatedRepo"}, Reason.HUB_GATED, False, "must accept its terms"),
        (401, {"X-Error-Code": "GatedRepo"}, Reason.HUB_GATED, False, "must accept its terms"),
        (404, {}, Reason.MODEL_NOT_FOUND, False, "answered 404"),
    ],
)
def test_what_a_hub_refuses_is_named(
    monkeypatch: pytest.MonkeyPatch,
    status: int,
    headers: dict[str, str],
    reason: Reason,
    retryable: bool,
    words: str,
) -> None:
    with refusing_hub(status, headers) as endpoint:
        failure = refused(monkeypatch, endpoint).failure
    assert (failure.reason, failure.retryable) == (reason, retryable)
    assert words in failure.message
    assert failure.message.endswith(".")


def test_a_hub_that_is_not_there_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)  # its own tries
    failure = refused(monkeypatch, "http://127.0.0.1:9").failure
    assert (failure.reason, failure.retryable) == (Reason.HUB_UNREACHABLE, True)
    assert "HTTPS_PROXY" in failure.message and "HF_ENDPOINT" in failure.message


def test_a_hub_that_must_not_be_asked_is_not_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    failure = refused(monkeypatch, "http://127.0.0.1:9").failure
    assert (failure.reason, failure.retryable) == (Reason.HUB_UNREACHABLE, False)
    assert "HF_HUB_OFFLINE is set" in failure.message


def test_a_proxy_that_was_asked_is_named_without_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)  # its own tries
    monkeypatch.setenv("https_proxy", "http://bob:secret@127.0.0.1:9")
    failure = refused(monkeypatch, "https://hub.example.com").failure
    assert failure.reason == Reason.HUB_UNREACHABLE
    assert "through the proxy 127.0.0.1:9" in failure.message
    assert "secret" not in failure.message


@pytest.mark.parametrize("body", [b"<html>Log in</html>", b'{"status": "ok"}', b"[1]", b'[{"a": 1}]', b""])
def test_a_server_that_is_no_hub_is_named(monkeypatch: pytest.MonkeyPatch, body: bytes) -> None:
    """A mirror's address that is wrong, or a proxy's page."""
    with other_server(body) as endpoint:
        failure = refused(monkeypatch, endpoint).failure
    assert (failure.reason, failure.retryable) == (Reason.HUB_UNREACHABLE, False)
    assert f"{endpoint} does not answer as a Hugging Face Hub" in failure.message
    assert "spec.hub.endpoint" in failure.message


READ_A_GATED_MODEL = """
from finetune_api.sources import HubModel
from finetune_trainer.model.folders import HubFolder
print(*HubFolder(HubModel("org/model", None)).paths())
"""


def test_the_token_is_read_from_the_file_that_a_pod_mounts(tmp_path: Path) -> None:
    token = tmp_path / "HF_TOKEN"
    with gated_hub(["config.json"], token="hf_right") as endpoint:
        environment = {**os.environ, "HF_ENDPOINT": endpoint, "HF_TOKEN_PATH": str(token), "HF_HOME": str(tmp_path)}
        environment.pop("HF_TOKEN", None)

        def read() -> subprocess.CompletedProcess[str]:
            command = [sys.executable, "-c", READ_A_GATED_MODEL]
            return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)

        without = read()
        assert "HubGated" in without.stderr or "is gated" in without.stderr
        assert "spec.hub.tokenSecretName" in without.stderr
        token.write_text("hf_right\n")
        assert read().stdout.split() == ["config.json"]
