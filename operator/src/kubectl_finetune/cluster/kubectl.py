"""Runs kubectl: argument lists, never a shell. Whatever kubectl can connect to, the plugin can."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from finetune_view.fields import Fields, Object, clean
from kubectl_finetune.errors import ExitCode, ForbiddenError, NoAccessError, NotFoundError, PluginError

REQUEST_SECONDS = 30
"""How long the API server may take to answer one request."""
COMMAND_SECONDS = 120
"""For all of a command of kubectl, which may have to log in first."""

_NO_KIND = re.compile(
    r"the server doesn't have a resource type|no matches for kind|could not find the requested resource"
)
_UNREACHABLE = re.compile(
    r"connection refused|no such host|i/o timeout|unable to connect|context deadline exceeded|was refused|"
    r"no configuration has been provided|current-context|does not exist|x509|tls:|"
    r"Client\.Timeout|network is unreachable|getting credentials|EOF|connection reset|ServiceUnavailable",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Kubectl:
    """kubectl with the options that choose the cluster, the user and the namespace."""

    options: tuple[str, ...] = ()

    @classmethod
    def with_options(cls, **chosen: str | list[str] | None) -> Kubectl:
        """The options that were given; what was not is up to kubectl and KUBECONFIG."""
        given = [(name, [value] if isinstance(value, str) else value or []) for name, value in chosen.items()]
        return cls(tuple(f"--{name}={value}" for name, values in given for value in values))

    @property
    def namespace(self) -> str | None:
        """The one that was chosen by an option."""
        prefix = "--namespace="
        return next((one.removeprefix(prefix) for one in self.options if one.startswith(prefix)), None)

    def run(self, *words: str, given: str | None = None, seconds: int = REQUEST_SECONDS) -> str:
        """The output of one command; `given` is its input. Raises PluginError."""
        done = self._done(*words, f"--request-timeout={seconds}s", given=given)
        if done.returncode != 0:
            raise error_of(done.stderr or done.stdout)
        return done.stdout

    def try_run(self, *words: str, given: str | None = None) -> tuple[bool, str, str]:
        """Whether one command succeeded, its output, and its errors. Raises NoAccessError if there is no kubectl."""
        done = self._done(*words, f"--request-timeout={REQUEST_SECONDS}s", given=given)
        return done.returncode == 0, done.stdout, done.stderr

    def get(self, *words: str) -> Object:
        """`kubectl get ... -o json`. Raises PluginError."""
        return _object(self.run("get", *words, "-o", "json"))

    def items(self, *words: str) -> list[Object]:
        """The items of `kubectl get ... -o json`. Raises PluginError."""
        return [item.value for item in Fields(self.get(*words)).at("items") if isinstance(item.value, dict)]

    def version(self) -> Object:
        """The versions of kubectl and of the cluster. Raises PluginError."""
        return _object(self.run("version", "-o", "json"))

    def start(self, *words: str) -> subprocess.Popen[str]:
        """A command that goes on, such as a watch; the caller ends it."""
        return subprocess.Popen(
            self._command(*words),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            errors="replace",
        )

    def _command(self, *words: str) -> list[str]:
        program = shutil.which("kubectl")
        if program is None:
            raise NoAccessError("kubectl is not on PATH. Install it: https://kubernetes.io/docs/tasks/tools/")
        return [program, *words, *self.options]

    def _done(self, *words: str, given: str | None) -> subprocess.CompletedProcess[str]:
        try:
            return subprocess.run(
                self._command(*words),
                input=given,
                capture_output=True,
                text=True,
                encoding="utf-8",
                errors="replace",
                timeout=COMMAND_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise NoAccessError(f"kubectl {words[0]} did not end within {COMMAND_SECONDS} seconds.") from None
        except OSError as error:
            raise NoAccessError(f"kubectl can't be run: {error}") from None


def watched(output: Iterable[str]) -> Iterator[tuple[str, Object]]:
    """Type and object of each event of `get --watch --output-watch-events -o json`: one a line."""
    for line in output:
        event = _object(line)
        if isinstance(event.get("object"), dict):
            yield str(event.get("type")), event["object"]


def error_of(stderr: str) -> PluginError:
    """The error in kubectl's words, and what to do about it."""
    message = clean(_own_message(stderr))
    sentence = message if message.endswith("?") else f"{message}."
    if "(NotFound)" in message:
        return NotFoundError(message)
    if _NO_KIND.search(message):
        return NotFoundError(
            f"{sentence} finetune-operator's CRDs are not installed in this cluster. Is it the right one? "
            "`kubectl config current-context` names it, --context chooses another"
        )
    if "(Forbidden)" in message:
        return ForbiddenError(f"{sentence} Ask the platform team for a role in this namespace")
    if "(Unauthorized)" in message or "must be logged in" in message:
        return NoAccessError(f"{sentence} Log in to the cluster again")
    if _UNREACHABLE.search(message):
        return NoAccessError(f"{sentence} Check --context, --kubeconfig, KUBECONFIG and the network")
    return PluginError(message or "kubectl failed without a message", ExitCode.FAILED)


def _own_message(stderr: str) -> str:
    """kubectl's message without klog's lines (`E1126 23:59:08.1 ...`), of which there is one for each request."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    own = [line for line in lines if not re.match(r"[EIWF]\d{4} ", line)]
    return " ".join(own or lines[-1:]).removeprefix("error: ").rstrip(".")


def _object(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError:
        raise PluginError(f"kubectl answered with something that is not JSON: {clean(text[:200])!r}") from None
    return found if isinstance(found, dict) else {}
