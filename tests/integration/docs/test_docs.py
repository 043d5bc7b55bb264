"""The YAML of the documentation is applied to a real API server (dry run), and its commands are run.

What changes something is a dry run; names that stand for a reader's own are replaced. An object that is not there is no
mistake of a page; a kind, a flag, a field, a condition or a file that is not there is one.
"""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import typer
import typer.main
import yaml

from e2e.cluster.binaries import binaries
from e2e.cluster.components.control_plane import ControlPlane
from finetune_operator.__main__ import cli
from finetune_trainer.__main__ import app
from kubectl_finetune.commands.cli import app as plugin
from tests.integration.operator.api import Api, RefusedError
from tests.unit.docs.pages import ROOT, Block, Command, blocks, commands

PLACEHOLDERS = {
    "NAME": "dictionary",
    "TEAM": "quickstart",
    "CLASS": "quickstart",
    "REGISTRY": "registry.example.com",
    "VERSION": "1.0.0",
    "TAG": "1.0.0",
    "$condition": "Ready",
    "$namespace": "quickstart",
    "$name": "dictionary",
    "$1": "AWS_ACCESS_KEY_ID",
    "...": "x",
}
FILES = {
    "my-job.yaml": "examples/quickstart/3-finetunejob.yaml",
    "-": "examples/quickstart/3-finetunejob.yaml",
    "--from-file=train.jsonl": "--from-file=examples/quickstart/data/train.jsonl",
    "--from-file=valid.jsonl": "--from-file=examples/quickstart/data/valid.jsonl",
}
CHANGING = frozenset(["apply", "create", "delete", "patch", "scale", "annotate", "label"])
FOREIGN_KINDS = frozenset(["Certificate", "PodMonitor"])
"""Of operators that the control plane has not."""
OF_AN_UPGRADE = frozenset(["--reuse-values", "--reset-then-reuse-values"])
"""Flags that `helm template` has not."""
OURS = {"finetune-trainer": app, "finetune-operator": cli, "finetune": plugin}
MISSING = re.compile(r"\(NotFound\)|not found|timed out waiting|no matching resources")
WRONG = re.compile(r"doesn't have a resource type|unknown (shorthand )?flag|unknown command|must specify|error parsing")


def yaml_blocks() -> list[Block]:
    return [block for block in blocks() if block.language == "yaml" and "apiVersion:" in block.text]


def of(program: str) -> list[Command]:
    return [command for command in commands() if command.words[0] == program and not is_of_plugin(command)]


def of_plugin() -> list[Command]:
    """`kubectl finetune ...`, without kubectl's name."""
    return [Command(command.place, command.words[1:]) for command in commands() if is_of_plugin(command)]


def is_of_plugin(command: Command) -> bool:
    return command.words[:2] == ("kubectl", "finetune")


@pytest.fixture(scope="module")
def api(cluster: ControlPlane) -> Api:
    """The API server with the quickstart's namespace and objects, and the namespaces that pages name."""
    api = Api(cluster, "quickstart")
    for name in ("quickstart", "team-a", "examples", "finetune-system", "finetune-storage", "argocd"):
        try:
            api.request("POST", "/api/v1/namespaces", {"metadata": {"name": name}})
        except RefusedError as refusal:
            assert refusal.code == 409, refusal
    patched = [ROOT / "examples/capabilities" / name for name in ("run-again.yaml", "suspended.yaml")]
    for file in [*sorted(ROOT.glob("examples/quickstart/*.yaml"))[1:], *patched]:
        assert kubectl(cluster, "apply", "-f", str(file)).returncode == 0
    return api


def kubectl(cluster: ControlPlane, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(binaries(["kubectl"])["kubectl"]), *words],
        env={**os.environ, "KUBECONFIG": str(cluster.kubeconfig)},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        cwd=ROOT,
    )


@pytest.mark.parametrize("block", yaml_blocks(), ids=str)
def test_the_api_server_accepts_every_yaml_of_the_docs(
    api: Api, cluster: ControlPlane, block: Block, tmp_path: Path
) -> None:
    documents = [document for document in yaml.safe_load_all(block.text) if document["kind"] not in FOREIGN_KINDS]
    for number, document in enumerate(documents):
        file = tmp_path / f"{number}.yaml"
        file.write_text(yaml.safe_dump(document))
        flags = ["--server-side", "--force-conflicts", "--dry-run=server", "--validate=strict", "--field-manager=docs"]
        done = kubectl(cluster, "apply", "-f", str(file), *flags)
        assert done.returncode == 0, done.stderr


def test_a_yaml_that_is_wrong_would_be_seen(api: Api, cluster: ControlPlane, tmp_path: Path) -> None:
    job = yaml.safe_load((ROOT / "examples/quickstart/3-finetunejob.yaml").read_text())
    (tmp_path / "wrong.yaml").write_text(yaml.safe_dump({**job, "spec": {**job["spec"], "epochs": 3}}))
    done = kubectl(cluster, "apply", "--server-side", "--dry-run=server", "-f", str(tmp_path / "wrong.yaml"))
    assert "epochs" in done.stderr


@pytest.mark.parametrize("command", of("kubectl"), ids=str)
def test_kubectl_accepts_every_command_of_the_docs(api: Api, cluster: ControlPlane, command: Command) -> None:
    words = [FILES.get(word, word) for word in map(replaced, command.words[1:])]
    if not {"-n", "--namespace", "-A", "apply"} & set(words):
        words += ["-n", "quickstart"]
    if len(command.words) <= 3:  # a mention: `kubectl wait`, `kubectl scale mdep`
        words.append("--help")
    elif CHANGING & set(words) and "token" not in words:  # which has no dry run, and there is no such account
        words.append("--dry-run=server")
    words = [re.sub(r"^--timeout=.*", "--timeout=1s", word) for word in words if word not in ("--watch", "-w")]
    done = kubectl(cluster, *words)
    assert not WRONG.search(done.stderr), done.stderr
    assert done.returncode == 0 or MISSING.search(done.stderr), done.stderr


def test_a_command_that_is_wrong_would_be_seen(api: Api, cluster: ControlPlane) -> None:
    for words in (["get", "finetunes"], ["get", "ftj", "--colour"], ["waits", "ftj"]):
        assert WRONG.search(kubectl(cluster, *words).stderr)


@pytest.mark.parametrize("command", of("helm"), ids=str)
def test_helm_accepts_every_command_of_the_docs(command: Command) -> None:
    verb, *words = map(replaced, command.words[1:])
    helm = str(binaries(["helm"])["helm"])
    if verb in ("install", "upgrade") and "charts/finetune-operator" in words:
        words = ["template", *(word for word in words if word not in OF_AN_UPGRADE)]
    else:
        words = [verb, *words, "--help"]
    done = subprocess.run([helm, *words], capture_output=True, text=True, timeout=60, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("command", [*of("finetune-trainer"), *of("finetune-operator"), *of_plugin()], ids=str)
def test_our_programs_accept_every_command_of_the_docs(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its subcommand, its options, and how many arguments it takes; files of a reader's own are made."""
    monkeypatch.chdir(ROOT)
    program, *words = command.words
    if len(words) == 1:  # a mention: `finetune-trainer validate`
        words.append("--help")
    made = [made_file(tmp_path, word) if stands_for_a_file(word) else replaced(word) for word in words]
    group: Any = typer.main.get_command(OURS[program])
    if not made or made[0] == "--help":
        return
    sub = group.commands[made[0]]
    try:
        sub.make_context(made[0], made[1:])
    except typer.Exit as left:
        assert left.exit_code == 0


def replaced(word: str) -> str:
    for placeholder, value in PLACEHOLDERS.items():
        word = re.sub(rf"(?<![\w]){re.escape(placeholder)}(?![\w])", value, word)
    return word


def stands_for_a_file(word: str) -> bool:
    return word in ("FILE", "KUBECONFIG", "$KUBECONFIG", "train.jsonl", "data/", "run.json")


def made_file(folder: Path, word: str) -> str:
    path = folder / (word.strip("$/") or "file")
    path.write_text("{}\n")
    return str(path)
