"""What the operator gets and answers: what was counted, and how requests are to be split. The gateway asks: it has no
port for it, and the operator makes no connection."""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import dataclass
from pathlib import Path

import structlog
from aiohttp import ClientError, ClientSession, ClientTimeout, TCPConnector

from finetune_gateway.canary.split import Split
from finetune_gateway.canary.traffic import Traffic

ASK_SECONDS = 2.0
BAD_REQUEST = 400
_TIMEOUT = ClientTimeout(total=10)
_LONGEST_ANSWER = 65536
_log = structlog.get_logger()


@dataclass(frozen=True)
class Control:
    """Where the operator is. `token`: file with the Pod's token for it, which is renewed; `ca`: PEM certificates."""

    url: str
    token: Path
    ca: str


async def sync_with_operator(control: Control, traffic: Traffic) -> None:
    """Tell and ask, for ever. While the operator does not answer, the split stays, and what is counted is kept."""
    tls, lost = ssl.create_default_context(cadata=control.ca), False
    async with ClientSession(connector=TCPConnector(ssl=tls), timeout=_TIMEOUT) as session:
        while True:
            try:
                await _once(session, control, traffic)
                lost = False
            except (ClientError, TimeoutError, OSError, ValueError) as error:
                if not lost:
                    _log.warning("the operator gives no answer; the split stays", error=str(error))
                lost = True
            await asyncio.sleep(ASK_SECONDS)


async def _once(session: ClientSession, control: Control, traffic: Traffic) -> None:
    headers = {"Authorization": f"Bearer {control.token.read_text().strip()}"}
    report = traffic.report()
    async with session.post(control.url, json=report, headers=headers, allow_redirects=False) as response:
        if response.status == BAD_REQUEST and report["batch"] is not None:
            traffic.refused()
        if response.status != 200:
            raise ValueError(f"HTTP {response.status}: {(await response.content.read(500)).decode(errors='replace')}")
        if (response.content_length or 0) > _LONGEST_ANSWER:
            raise ValueError("the answer is too long")
        found = await response.json()
    if not isinstance(found, dict):
        raise ValueError("the answer is no object")
    acknowledged = found.get("acknowledged")
    if type(acknowledged) is int:
        traffic.acknowledged(report["split"], acknowledged)
    traffic.follow(Split.read(found.get("split")))
