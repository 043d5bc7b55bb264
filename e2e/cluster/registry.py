"""The local image registry: what is pushed to `localhost:5001/...` the cluster's node can pull by the same name.

Both sides take `localhost` for plain HTTP without being told (buildah wants `--tls-verify=false`). Its storage is
kept, so that only layers that are new travel.
"""

from __future__ import annotations

import urllib.request
from pathlib import Path

import yaml

from e2e.cluster.machine import processes
from e2e.cluster.places import registry_root
from e2e.steps import StepFailed

REGISTRY = "localhost:5001"
PROCESS = "registry"


def start_registry(home: Path) -> None:
    """Run Debian's docker-registry on REGISTRY."""
    if _answers():
        raise StepFailed(f"Something already answers on {REGISTRY}. What to do: stop it; `ss -ltnp` names it.")
    config = home / "registry.yaml"
    content = {
        "version": 0.1,
        "log": {"level": "warn", "accesslog": {"disabled": True}},
        "storage": {"filesystem": {"rootdirectory": str(registry_root())}, "delete": {"enabled": True}},
        "http": {"addr": REGISTRY.replace("localhost", "127.0.0.1")},
    }
    config.write_text(yaml.safe_dump(content))
    processes.start(home, PROCESS, ["docker-registry", "serve", config])
    processes.wait_until(_answers, "The image registry", home=home, needs=[PROCESS], timeout=20)


def _answers() -> bool:
    try:
        with urllib.request.urlopen(f"http://{REGISTRY}/v2/", timeout=2):
            return True
    except OSError:
        return False
