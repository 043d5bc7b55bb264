"""`diagnose`: one zip with everything about an object that helps others to find out what is wrong."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from finetune_api.pod_contracts.run import RUN_ANNOTATIONS
from finetune_view import children
from finetune_view.children import Pod
from finetune_view.fields import Fields, Object
from finetune_view.object_view import ObjectView
from kubectl_finetune.cluster.classes import find_class
from kubectl_finetune.cluster.kubectl import Kubectl
from kubectl_finetune.diagnostics.redact import redacted, redacted_text
from kubectl_finetune.display.status import status_rows
from kubectl_finetune.errors import PluginError

LOG_LINES = 2000
MOST_LOGS = 40
"""Pods whose logs are collected; the newest first."""
MOST_LOG_BYTES = 2**20
WORKERS = 8
_README = """What `kubectl finetune diagnose` collected of {about} at {moment:%Y-%m-%dT%H:%M:%SZ}.

Redacted: values of environment variables, whatever looks like a token, key or password, the query of every URL.
Secrets are never read. Look through the files before you send them: lines of a dataset may stand in errors and logs.

{contents}
"""


@dataclass
class Collector:
    """Asks kubectl several things at a time. What can't be read is noted, and the rest is collected all the same."""

    pool: ThreadPoolExecutor
    problems: list[str] = field(default_factory=list)

    def start(self, title: str, ask: Callable[..., Any], *words: Any, otherwise: Any = None) -> Future[Any]:
        """Begin to ask; the result is `otherwise` if there is no answer."""
        return self.pool.submit(self._answer, title, ask, words, otherwise)

    def _answer(self, title: str, ask: Callable[..., Any], words: tuple[Any, ...], otherwise: Any) -> Any:
        try:
            return ask(*words)
        except PluginError as error:
            self.problems.append(f"{title}: {error}")
            return otherwise


def diagnose(kubectl: Kubectl, view: ObjectView, to: Path, now: datetime) -> list[str]:
    """Write the zip; returns what could not be collected, and why. Raises PluginError if the file can't be written."""
    labels = children.selector(view)
    with ThreadPoolExecutor(WORKERS) as pool:
        collector = Collector(pool)
        pods = collector.start("pods", kubectl.items, "pods", "-l", labels, otherwise=[])
        lists = {
            kind: collector.start(kind, kubectl.items, kind, "-l", labels, otherwise=[])
            for kind in ("jobs", "configmaps", "deployments")
        }
        lists["events"] = collector.start("events", kubectl.items, "events", otherwise=[])
        class_name = view.status.text("className") or view.fields.text("spec", "className")
        platform = collector.start("class", find_class, kubectl, class_name)
        version = collector.start("version", kubectl.version)
        newest = list(reversed(children.sorted_pods(pods.result())))[:MOST_LOGS]
        logs = {pod.name: collector.start(f"log of {pod.name}", _log, kubectl, pod, otherwise="") for pod in newest}
    found = {kind: future.result() for kind, future in {**lists, "pods": pods}.items()}
    files = dict(_objects(view, found, platform.result(), version.result()))
    files["status.txt"] = _as_text(view, now)
    files |= {f"logs/{name}.log": redacted_text(text) for name, log in logs.items() if (text := log.result())}
    missing = ["", "Not collected:", *collector.problems] if collector.problems else []
    contents = "\n".join([*sorted(files), *missing])
    readme = _README.format(about=f"{view.resource} in {view.namespace}", moment=now, contents=contents)
    _write(to, {"README.txt": redacted_text(readme), **files})
    return collector.problems


def _objects(
    view: ObjectView, found: dict[str, list[Object]], platform: Object | None, version: Object | None
) -> Iterator[tuple[str, str]]:
    """Names and contents of the files with objects."""
    yield "object.json", _json(view.fields.value)
    events = children.sorted_events(found["events"], view, [*found["jobs"], *found["pods"]])
    yield "events.json", _json([event.fields.value for event in events])
    for name in ("jobs", "pods", "deployments"):
        if found[name]:
            yield f"{name}.json", _json(found[name])
    alone = [pod for pod in found["pods"] if Pod(Fields(pod)).is_alone]
    configurations = [*found["configmaps"], *map(_annotated, [*found["jobs"], *alone])]
    if parsed := [_parsed(item) for item in configurations if item.get("data")]:
        yield "run-configurations.json", _json(parsed)
    if platform is not None:
        yield "class.json", _json(platform)
    if version is not None:
        yield "version.json", _json(version)


def _log(kubectl: Kubectl, pod: Pod) -> str:
    words = ("--all-containers", "--ignore-errors", f"--tail={LOG_LINES}", f"--limit-bytes={MOST_LOG_BYTES}")
    text = kubectl.run("logs", pod.name, *words)
    if not text:
        raise PluginError("there is none")
    return text


def _annotated(item: Object) -> Object:
    """The run configuration of a Job, which its Pods have as annotations, or of a Pod, like one in a ConfigMap."""
    template = item["spec"].get("template", item)
    annotations = template.get("metadata", {}).get("annotations", {})
    files = {file: annotations[name] for file, name in RUN_ANNOTATIONS.items() if name in annotations}
    kind = "Pod" if template is item else "Job"
    return {"kind": kind, "metadata": {"name": item["metadata"]["name"]}, "data": files}


def _parsed(config_map: Object) -> Object:
    """A run configuration as JSON, and not as a text with JSON, so that its members are redacted by their names."""
    data = config_map.get("data")
    texts = data.items() if isinstance(data, dict) else ()
    return {**config_map, "data": {name: _json_or_text(text) for name, text in texts}}


def _json_or_text(text: Any) -> Any:
    try:
        return json.loads(text)
    except (TypeError, ValueError):
        return text


def _json(value: Any) -> str:
    return json.dumps(redacted(value), indent=2)


def _as_text(view: ObjectView, now: datetime) -> str:
    rows = status_rows(view, now, all_lines=True)
    lines = [f"{row.label if not number else '':12} {line}" for row in rows for number, line in enumerate(row.lines)]
    return redacted_text("\n".join(lines) + "\n")


def _write(to: Path, files: dict[str, str]) -> None:
    folder = to.stem
    try:
        with zipfile.ZipFile(to, "x", zipfile.ZIP_DEFLATED) as archive:
            for name, text in files.items():
                archive.writestr(f"{folder}/{name}", text.encode("utf-8", errors="replace"))
    except FileExistsError:
        raise PluginError(f"{to} exists already. Name another file with -o.") from None
    except OSError as error:
        raise PluginError(f"{to} can't be written: {error}") from None


def default_file(view: ObjectView, now: datetime) -> Path:
    """In the current folder, named after the object and the time."""
    return Path(f"finetune-{view.namespace}-{view.name}-{now.astimezone(UTC):%Y%m%dT%H%M%SZ}.zip")
