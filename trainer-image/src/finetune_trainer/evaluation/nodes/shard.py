"""Which shard of the work is a Pod's, of several that evaluate together, and when the others have generated theirs.

The Indexed Job gives each Pod its index. What loaded models are asked is dealt out like cards: the batches of a single
Pod one by one, so that each batch, and with greedy decoding each output, is the same whoever generates it. Every Pod
saves what it generates where another try would find it. The first one waits for the others, generates what they have
not, and goes on alone: it asks APIs, grades and reports.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

import structlog

from finetune_api.pod_contracts.run import EvaluateRun
from finetune_api.sources import StorageLocation, parse_s3
from finetune_trainer.distributed.ranks import NODE_RANK
from finetune_trainer.outputs.shard import WHOLE, Shard
from finetune_trainer.storage.storage import Storage

SILENT_SECONDS = 900.0
"""After so long without a new output of any Pod, the first one generates the rest itself."""
POLL_SECONDS = 5.0
SHARDS = "shards"
"""The folder with an object for each Pod that has generated its shard."""

_log = structlog.get_logger()


def shard_of(run: EvaluateRun, environment: Mapping[str, str]) -> Shard:
    """The shard of this Pod."""
    return WHOLE if run.nodes == 1 else Shard(int(environment[NODE_RANK]), run.nodes)


def mark_shard_done(run: EvaluateRun, shard: Shard, storage: Storage) -> None:
    """Let the first Pod know that this shard is generated. Raises DiagnosedError."""
    storage.write(_done(run).join(str(shard.index)), b"")


def wait_for_shards(run: EvaluateRun, shard: Shard, storage: Storage) -> None:
    """Wait until the other shards are done, or none of the Pods has saved anything for SILENT_SECONDS.

    Raises DiagnosedError.
    """
    before: Sequence[object] = ()
    since = time.monotonic()
    while True:
        done = {item.path for item in storage.list_objects(_done(run))}
        missing = [at for at in range(run.nodes) if at != shard.index and str(at) not in done]
        if not missing:
            return
        kept = [] if run.outputs_uri is None else storage.list_objects(parse_s3(run.outputs_uri))
        saved = [sorted(done), [item.path for item in kept]]
        if saved != before:
            before, since = saved, time.monotonic()
        if time.monotonic() - since >= SILENT_SECONDS:
            _log.warning(f"the Pods of index {missing} have saved nothing for {SILENT_SECONDS:.0f} seconds: going on.")
            return
        time.sleep(POLL_SECONDS)


def _done(run: EvaluateRun) -> StorageLocation:
    # Of this try: the folder is named after its Job.
    return parse_s3(run.output_uri).join(SHARDS)
