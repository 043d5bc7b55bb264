"""A name is a name and never a part of a path: what can't be one is refused before anything is asked."""

from __future__ import annotations

from typing import Any

import pytest

from finetune_client import AsyncFineTuneClient, FineTuneClient, FineTuneError
from finetune_client.kinds import FINE_TUNE_JOBS, class_path, core_path


@pytest.mark.parametrize("name", ["", "..", "router/status", "Router", "a" * 64, "-a", "router\n", None])
async def test_what_can_be_no_name_is_refused(name: Any) -> None:
    """No connection is opened: there is no cluster."""
    told = "can't be the name of a FineTuneJob: at most 63"
    with FineTuneClient("team-a") as client, pytest.raises(FineTuneError, match=told):
        client.get(name)
    async with AsyncFineTuneClient("team-a") as asynchronous:
        with pytest.raises(FineTuneError, match=told):
            await asynchronous.get(name)


@pytest.mark.parametrize("namespace", ["", "team-a/pods", "Team"])
def test_what_can_be_no_namespace_is_refused(namespace: str) -> None:
    with FineTuneClient(namespace) as client, pytest.raises(FineTuneError, match="can't be the name of a namespace"):
        client.list()


def test_names_from_the_cluster_stay_within_their_part_of_the_path() -> None:
    """Those of Secrets and classes are read from objects."""
    assert FINE_TUNE_JOBS.path("a", "router") == "/apis/finetune.dev/v1alpha1/namespaces/a/finetunejobs/router"
    assert core_path("secrets", "a", "x/../y?z") == "/api/v1/namespaces/a/secrets/x%2F..%2Fy%3Fz"
    assert class_path("my class").endswith("/finetuneclasses/my%20class")
    for name in ("", "..", "."):
        with pytest.raises(FineTuneError, match="can't be the name of an object"):
            core_path("pods", "a", name)
