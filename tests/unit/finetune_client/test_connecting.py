"""Which cluster a client talks to, chosen as kubectl does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from finetune_client import FineTuneClient, NoConnectionError
from finetune_client.connecting import Source, active_namespace


@pytest.fixture(autouse=True)
def _no_configuration(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("KUBECONFIG", "KUBERNETES_SERVICE_HOST"):
        monkeypatch.delenv(name, raising=False)


def test_a_pod_uses_its_account_unless_a_kubeconfig_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not Source.of(None, None).in_cluster
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    assert Source.of(None, None).in_cluster
    assert not Source.of("config", None).in_cluster and not Source.of(None, "prod").in_cluster
    monkeypatch.setenv("KUBECONFIG", "/etc/config")
    assert Source.of(None, None) == Source("/etc/config", None, False)


def test_the_namespace_is_that_of_the_context() -> None:
    known = [{"name": "a", "context": {"namespace": "team-a"}}, {"name": "b", "context": {}}]

    def contexts(file: str | None) -> tuple[Any, Any]:
        return known, known[0]

    assert active_namespace(Source(None, None, False), contexts) == "team-a"
    assert active_namespace(Source(None, "b", False), contexts) == "default"


def test_without_a_cluster_it_says_how_to_name_one(tmp_path: Path) -> None:
    with pytest.raises(NoConnectionError, match=r"[^.]\. Pass FineTuneClient.* KUBECONFIG, or run in a Pod"):
        FineTuneClient("a").get("x")
    with pytest.raises(NoConnectionError, match=r"nothing\.yaml can't be used"):
        FineTuneClient("a", kubeconfig=tmp_path / "nothing.yaml").get("x")
