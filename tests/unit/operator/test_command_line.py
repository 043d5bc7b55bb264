"""`finetune-operator`: what is refused before anything starts."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from finetune_operator.__main__ import cli
from finetune_operator.runtime import manager
from finetune_operator.runtime.leader_election import LeadershipLostError
from finetune_operator.runtime.manager import progress_endpoint
from finetune_operator.runtime.sharding import WHOLE, Shard
from finetune_operator.settings import Settings


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--kubeconfig=/nowhere"], "/nowhere"),
        (["--progress-url=https://finetune.svc:8443"], "go together"),
        (["--tls-directory=/"], "go together"),
        (["--workers=0"], "workers"),
        *(([f"--shard={wrong}"], "INDEX/COUNT") for wrong in ("2/2", "0/0", "0/17", "1", "-1/2", "a/b", "0/2/3", "")),
        (["--resync-seconds=0"], "resync"),
    ],
)
def test_flags_that_do_not_fit_are_refused(flags: list[str], told: str) -> None:
    done = CliRunner(env={"TERM": "dumb", "NO_COLOR": "1"}).invoke(cli, ["run", *flags])
    assert done.exit_code == 2
    assert told in done.output


def started(monkeypatch: pytest.MonkeyPatch, *flags: str, fails: BaseException | None = None) -> tuple[int, Settings]:
    """The exit status, and what the operator was started with."""
    given: list[Settings] = []

    async def run(settings: Settings) -> None:
        given.append(settings)
        if fails is not None:
            raise fails

    monkeypatch.setattr(manager, "run", run)
    done = CliRunner().invoke(cli, ["run", *flags])
    assert done.exception is None or isinstance(done.exception, SystemExit), "a traceback"
    return done.exit_code, given[0]


def test_inside_the_cluster_replicas_elect_a_leader(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.touch()
    outside = f"--kubeconfig={config}"
    elects = [
        started(monkeypatch, *flags)[1].leader_election
        for flags in ((), ("--no-leader-election",), (outside,), (outside, "--leader-election"))
    ]
    assert elects == [True, False, False, True]


def test_the_operators_namespace_is_an_option(monkeypatch: pytest.MonkeyPatch) -> None:
    assert started(monkeypatch, "--namespace=finetune-system")[1].namespace == "finetune-system"


def test_what_only_a_new_process_cures_ends_it_with_an_error_and_without_a_traceback(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    error = LeadershipLostError("somebody holds the Lease")
    assert started(monkeypatch, fails=ExceptionGroup("tasks", [error]))[0] == 1


def test_pods_trust_the_ca_that_lies_beside_the_certificate(tmp_path: Path) -> None:
    (tmp_path / "ca.crt").write_text("PEM")
    endpoint = progress_endpoint(Settings(progress_url="https://finetune.svc:8443", tls_directory=tmp_path))
    assert endpoint is not None
    assert (endpoint.url, endpoint.ca) == ("https://finetune.svc:8443", "PEM")
    assert progress_endpoint(Settings()) is None


def test_an_operator_works_on_all_namespaces_or_on_its_shard(monkeypatch: pytest.MonkeyPatch) -> None:
    assert started(monkeypatch)[1].shard == WHOLE
    assert started(monkeypatch, "--shard=2/3")[1].shard == Shard(2, 3)
