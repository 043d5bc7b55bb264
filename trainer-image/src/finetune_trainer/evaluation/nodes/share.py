"""Which part of the work is a Pod's, of several that evaluate together.

The Indexed Job gives each Pod its index. What loaded models are asked is dealt out like cards: the batches of a single
Pod one by one, so that each batch, and with greedy decoding each output, is the same whoever makes it. Every Pod saves
what it makes where another try would find it. The first one waits for the others, makes what they have not made, and
goes on alone: it asks APIs, grades and reports.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

import structlog

from finetune_api.pod_contracts.run import EvaluateRun
from finetune_api.sources import StorageLocation, parse_s3
from finetune_trainer.distributed.ranks import NODE_RANK
from finetune_trainer.outputs.share import ALONE, Share
from finetune_trainer.storage.storage import Storage

SILENT_SECONDS = 900.0
"""After so long without a new output of any Pod, the first one makes the rest itself."""
LOOK_SECONDS = 5.0
SHARES = "shares"
"""The folder with an object for each Pod that has made its share."""

_log = structlog.get_logger()


def share_of(run: EvaluateRun, environment: Mapping[str, str]) -> Share:
    """The share of this Pod."""
    return ALONE if run.nodes == 1 else Share(int(environment[NODE_RANK]), run.nodes)


def note_end(run: EvaluateRun, share: Share, storage: Storage) -> None:
    """Tell the first Pod that this share is made. Raises DiagnosedError."""
    storage.write(_ends(run).join(str(share.index)), b"")


def wait_for_others(run: EvaluateRun, share: Share, storage: Storage) -> None:
    """Wait until the others have made their shares, or none of them has saved anything for SILENT_SECONDS.

    Raises DiagnosedError.
    """
    before: Sequence[object] = ()
    since = time.monotonic()
    while True:
        ended = {item.path for item in storage.list_objects(_ends(run))}
        missing = [at for at in range(run.nodes) if at != share.index and str(at) not in ended]
        if not missing:
            return
        made = [] if run.outputs_uri is None else storage.list_objects(parse_s3(run.outputs_uri))
        saved = [sorted(ended), [item.path for item in made]]
        if saved != before:
            before, since = saved, time.monotonic()
        if time.monotonic() - since >= SILENT_SECONDS:
            _log.warning(f"the Pods of index {missing} have saved nothing for {SILENT_SECONDS:.0f} seconds: going on.")
            return
        time.sleep(LOOK_SECONDS)


def _ends(run: EvaluateRun) -> StorageLocation:
    # Of this try: the folder is named after its Job.
    return parse_s3(run.output_uri).join(SHARES)
