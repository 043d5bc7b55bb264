"""Candidates for a word of the command line: commands, options, and names of objects of the cluster."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from finetune_view.resource import FINE_TUNE_JOB, KINDS
from kubectl_finetune.cluster.kubectl import Kubectl
from kubectl_finetune.commands.app import CONNECTION_OPTIONS
from kubectl_finetune.errors import PluginError

SECONDS = 5
"""A person waits for it with a key pressed."""
_CONNECTION = CONNECTION_OPTIONS | {"-n"}
_WITHOUT_NAMES = frozenset({"init", "validate", "completion"})


def candidates(commands: Mapping[str, Any], words: list[str]) -> list[str]:
    """What the last of `words` can become; `commands`: the click commands of the command line, by their names."""
    *before, begun = words or [""]
    if not before:
        return [name for name in commands if name.startswith(begun)]
    command = commands.get(before[0])
    if command is None:
        return []
    if begun.startswith("-"):
        options = [name for parameter in command.params for name in parameter.opts if name.startswith("--")]
        return sorted(name for name in [*options, "--help"] if name.startswith(begun))
    takes_value = {name for parameter in command.params if not _is_flag(parameter) for name in parameter.opts}
    if before[0] in _WITHOUT_NAMES or before[-1] in takes_value:
        return []
    return [name for name in _names(Kubectl(tuple(_connection(before))), begun) if name.startswith(begun)]


def _is_flag(parameter: Any) -> bool:
    return bool(getattr(parameter, "is_flag", False))


def _connection(words: list[str]) -> Iterator[str]:
    """kubectl's options among the words, with their values."""
    for word, following in zip(words, [*words[1:], ""], strict=True):
        if word in _CONNECTION and following:
            yield f"{'--namespace' if word == '-n' else word}={following}"
        elif word.partition("=")[0] in _CONNECTION and "=" in word:
            yield word.replace("-n=", "--namespace=", 1) if word.startswith("-n=") else word


def _names(kubectl: Kubectl, begun: str) -> list[str]:
    """Names of FineTuneJobs, or of the kind that the word begins with; none where the cluster does not tell."""
    prefix, slash, _ = begun.rpartition("/")
    kind = next((kind for kind in KINDS if kind.short_name == prefix), FINE_TUNE_JOB)
    try:
        output = kubectl.run("get", kind.resource, "-o", "name", seconds=SECONDS)
    except PluginError:
        return []
    names = [line.rpartition("/")[2] for line in output.splitlines()]
    return [f"{prefix}/{name}" if slash else name for name in names]
