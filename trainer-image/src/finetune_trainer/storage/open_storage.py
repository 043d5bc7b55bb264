"""The storage of a run: S3 alone in a Pod, S3 and local folders on a laptop."""

from __future__ import annotations

from finetune_api.pod_contracts.run import StorageConfig
from finetune_trainer.storage.s3_and_local import S3AndLocalStorage
from finetune_trainer.storage.storage import Storage


def open_storage(config: StorageConfig, *, proven: bool = False, reports_unanswered: bool = False) -> Storage:
    """Open the storage that a run is configured with. The rest: see Storage."""
    if config.local_folders:
        return S3AndLocalStorage(config)
    return Storage(config, proven=proven, reports_unanswered=reports_unanswered)
