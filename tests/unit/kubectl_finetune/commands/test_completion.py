"""Completion: what kubectl is told that the last word can become."""

from __future__ import annotations

import pytest

from kubectl_finetune.__main__ import complete


@pytest.mark.parametrize(
    ("words", "candidates"),
    [
        (["su"], ["suspend"]),
        (["status", "--na"], ["--namespace"]),
        (["init", ""], []),
        (["no-such-command", ""], []),
    ],
    ids=["a command", "an option", "a file", "of an unknown command"],
)
def test_kubectl_gets_a_line_for_each_candidate_and_the_directive_to_offer_no_files(
    words: list[str], candidates: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("signal.signal", lambda *_: None)  # this process keeps its own
    monkeypatch.setattr("sys.argv", ["kubectl_complete-finetune", *words])
    with pytest.raises(SystemExit) as ended:
        complete()
    assert ended.value.code == 0
    assert capsys.readouterr().out.splitlines() == [*candidates, ":4"]
