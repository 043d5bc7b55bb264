"""`finetune-operator`: what is refused before anything starts."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from finetune_operator.__main__ import cli
from finetune_operator.application import progress_endpoint
from finetune_operator.settings import Settings


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--kubeconfig=/nowhere"], "/nowhere"),
        (["--progress-url=https://finetune.svc:8443"], "go together"),
        (["--tls-directory=/"], "go together"),
        (["--workers=0"], "workers"),
    ],
)
def test_flags_that_do_not_fit_are_refused(flags: list[str], told: str) -> None:
    done = CliRunner(env={"TERM": "dumb", "NO_COLOR": "1"}).invoke(cli, ["run", *flags])
    assert done.exit_code == 2
    assert told in done.output


def test_pods_trust_the_ca_that_lies_beside_the_certificate(tmp_path: Path) -> None:
    (tmp_path / "ca.crt").write_text("PEM")
    endpoint = progress_endpoint(Settings(progress_url="https://finetune.svc:8443", tls_directory=tmp_path))
    assert endpoint is not None
    assert (endpoint.url, endpoint.ca) == ("https://finetune.svc:8443", "PEM")
    assert progress_endpoint(Settings()) is None
