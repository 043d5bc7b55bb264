"""The plugins for k9s run commands that there are, with options that they have."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml

from finetune_view.resource import KINDS
from kubectl_finetune.commands.cli import app

FILE = Path(__file__).parents[4] / "operator" / "kubectl-plugin" / "k9s-plugins.yaml"
PLUGINS: dict[str, Any] = yaml.safe_load(FILE.read_text())["plugins"]
REQUIRED = {"shortCut", "description", "scopes", "command", "background", "args"}
KNOWN = REQUIRED | {"confirm", "dangerous", "override", "pipes", "overwriteOutput", "inputs"}
"""https://k9scli.io/topics/plugins/"""


@pytest.mark.parametrize("name", PLUGINS)
def test_every_k9s_plugin_calls_a_command_of_ours_with_the_arguments_it_takes(name: str) -> None:
    plugin = PLUGINS[name]
    assert plugin.keys() >= REQUIRED and plugin.keys() <= KNOWN
    assert set(plugin["scopes"]) <= {kind.plural for kind in KINDS}
    line = (
        plugin["args"][1].partition(" 2>")[0] if plugin["command"] == "sh" else shlex.join(["kubectl", *plugin["args"]])
    )
    kubectl, finetune, command, *words = shlex.split(line)
    assert (kubectl, finetune) == ("kubectl", "finetune")
    group: Any = typer.main.get_command(app)
    context = group.commands[command].make_context(command, words)
    assert context.params["name"] == "$NAME" and context.params["context"] == "$CONTEXT"


def test_no_key_is_taken_twice() -> None:
    keys = [plugin["shortCut"] for plugin in PLUGINS.values()]
    assert len(set(keys)) == len(keys)
