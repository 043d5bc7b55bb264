"""The proxies that are compared, each in front of the same server, and what their processes spend."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

from benchmarks.processes import running

HOST = "127.0.0.1"
START_SECONDS = 60
_TYPES = "type.googleapis.com/envoy.extensions.filters"
_TICKS = os.sysconf("SC_CLK_TCK")


def gateway_command(folder: Path, port: int, upstream: int, metrics_port: int) -> list[str]:
    """Ours, with room for all streams."""
    limits = ["--in-flight=512", "--queue=64", "--queue-seconds=30"]
    ports = [f"--servers-port={upstream}", f"--port={port}", f"--metrics-port={metrics_port}"]
    return [sys.executable, "-m", "finetune_gateway", f"--servers={HOST}", f"--host={HOST}", *ports, *limits]


def envoy_command(program: str, folder: Path, port: int, upstream: int) -> list[str]:
    """Envoy as a plain proxy, with one worker."""
    router = {"@type": f"{_TYPES}.http.router.v3.Router"}
    connections = {
        "@type": f"{_TYPES}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "proxy",
        "stream_idle_timeout": "0s",
        "http_filters": [{"name": "router", "typed_config": router}],
        "route_config": {
            "virtual_hosts": [
                {
                    "name": "all",
                    "domains": ["*"],
                    "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "server", "timeout": "0s"}}],
                }
            ]
        },
    }
    filters = [{"name": "envoy.filters.network.http_connection_manager", "typed_config": connections}]
    listener = {"name": "http", "address": _address(port), "filter_chains": [{"filters": filters}]}
    cluster = {
        "name": "server",
        "type": "STATIC",
        "connect_timeout": "3s",
        "load_assignment": {
            "cluster_name": "server",
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": _address(upstream)}}]}],
        },
    }
    file = folder / "envoy.json"
    file.write_text(json.dumps({"static_resources": {"listeners": [listener], "clusters": [cluster]}}))
    return [program, "-c", str(file), "--concurrency", "1", "--log-level", "error", "--disable-hot-restart"]


def traefik_command(program: str, folder: Path, port: int, upstream: int) -> list[str]:
    """Traefik as a plain proxy."""
    server = {"loadBalancer": {"servers": [{"url": f"http://{HOST}:{upstream}"}]}}
    http = {"routers": {"all": {"rule": "PathPrefix(`/`)", "service": "server"}}, "services": {"server": server}}
    routes, file = folder / "routes.yml", folder / "traefik.yml"
    routes.write_text(json.dumps({"http": http}))
    entry = {"address": f"{HOST}:{port}"}
    settings = {"entryPoints": {"web": entry}, "providers": {"file": {"filename": str(routes)}}}
    file.write_text(json.dumps({**settings, "global": {"checkNewVersion": False, "sendAnonymousUsage": False}}))
    return [program, f"--configFile={file}"]


def _address(port: int) -> dict[str, object]:
    return {"socket_address": {"address": HOST, "port_value": port}}


@contextmanager
def answering(command: list[str], folder: Path, name: str, port: int) -> Iterator[int]:
    """A proxy or server that answers at this port; its PID."""
    with running(command, dict(os.environ), folder / f"{name}.log") as process:
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                with urlopen(f"http://{HOST}:{port}/v1/models", timeout=5):
                    break
            except (URLError, ConnectionError, TimeoutError):
                if process.poll() is not None or time.monotonic() > deadline:
                    log = (folder / f"{name}.log").read_text()[-2000:]
                    raise RuntimeError(f"{name} does not answer at port {port}: {log}") from None
                time.sleep(0.1)
        yield process.pid


def cpu_seconds(pid: int) -> float:
    """What a process has spent so far, with all of its threads."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def resident_mib(pid: int) -> float:
    """Its memory now."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20
