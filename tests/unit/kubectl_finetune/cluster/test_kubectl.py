"""What kubectl says, and what a person is told of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kubectl_finetune.cluster.kubectl import Kubectl, error_of, watched
from kubectl_finetune.errors import ForbiddenError, NoAccessError, NotFoundError, PluginError

REFUSED = """E1126 23:59:08.164161   22 memcache.go:265] "Unhandled Error" err="couldn't get API group list"
E1126 23:59:08.165161   22 memcache.go:265] "Unhandled Error" err="couldn't get API group list"
The connection to the server localhost:8080 was refused - did you specify the right host or port?
"""


@pytest.mark.parametrize(
    ("stderr", "kind", "told"),
    [
        ('Error from server (NotFound): finetunejobs.finetune.dev "x" not found\n', NotFoundError, '"x" not found'),
        ('error: the server doesn\'t have a resource type "finetunejobs"', NotFoundError, "CRDs are not installed"),
        ('Error from server (Forbidden): pods is forbidden: User "u" cannot list', ForbiddenError, "a role"),
        ("error: You must be logged in to the server (Unauthorized)", NoAccessError, "Log in"),
        (REFUSED, NoAccessError, "host or port? Check --context"),
        ("Unable to connect to the server: dial tcp: lookup c: no such host", NoAccessError, "KUBECONFIG"),
        ('error: context "prod" does not exist', NoAccessError, "--context"),
        ("Error from server (BadRequest): x", PluginError, "(BadRequest): x"),
        ("", PluginError, "without a message"),
        ("error: \x1b[2J bad", PluginError, "^[[2J bad"),
    ],
)
def test_errors_say_what_to_do(stderr: str, kind: type[PluginError], told: str) -> None:
    error = error_of(stderr)
    assert type(error) is kind
    assert told in str(error) and "memcache.go" not in str(error) and "\n" not in str(error)


def test_a_watch_is_read_line_by_line() -> None:
    events = [{"type": "ADDED", "object": {"a": 1}}, {"type": "MODIFIED", "object": {"c": "}\n}"}}]
    lines = [f"{json.dumps(event)}\n" for event in events]
    assert list(watched(lines)) == [(one["type"], one["object"]) for one in events]
    assert list(watched(['{"type": "ERROR"}\n', "[]\n"])) == []
    with pytest.raises(PluginError, match="not JSON"):
        list(watched([lines[0][:20]]))


def test_options_go_to_kubectl_as_one_word_each() -> None:
    kubectl = Kubectl.with_options(namespace="a b; rm -rf /", context=None, **{"as": "--token=x"})
    assert kubectl.options == ("--namespace=a b; rm -rf /", "--as=--token=x")


def test_a_user_may_be_impersonated_in_several_groups() -> None:
    groups = Kubectl.with_options(**{"as": "jane", "as-group": ["team-a", "system:authenticated"]}).options
    assert groups == ("--as=jane", "--as-group=team-a", "--as-group=system:authenticated")


def test_without_kubectl_the_error_says_where_to_get_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NoAccessError, match="not on PATH"):
        Kubectl().run("version")
