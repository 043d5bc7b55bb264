"""A model on a hub that can't be had: why not is told, and tried again only where that may help."""

from __future__ import annotations

import pytest

from finetune_api.conditions import Reason
from finetune_api.sources import HubModel
from finetune_trainer.model.folders import HubFolder
from finetune_trainer.process.failures import DiagnosedError
from tests.integration.trainer.data.played_hub import refusing_hub

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
