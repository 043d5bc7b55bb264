"""The model of a job on this machine: a whole model, or an adapter, such as the result of another job, with its base.

In a cluster the base comes from the status of the job that made the adapter; what an adapter's files say of it is not
asked there, for it might name what the class does not allow.
"""

from __future__ import annotations

import json
import re
import tempfile
from pathlib import Path

from finetune_api.conditions import Reason
from finetune_api.pod_contracts.run import ModelSource
from finetune_trainer.model.folders import ADAPTER_CONFIG, is_adapter, open_folder
from finetune_trainer.process.failures import DiagnosedError
from finetune_trainer.storage.storage import Storage

BASE_KEY = "base_model_name_or_path"  # of peft's config: a path, a URI of ours, or a name on the hub
_HUB_NAME = re.compile(r"\w[\w.-]*/\w[\w.-]*")


def model_source(uri: str, storage: Storage) -> ModelSource:
    """The model that `model.uri` names. Raises DiagnosedError for an adapter without a base, or as `open_folder`
    does."""
    folder = open_folder(uri, None, storage)
    if not is_adapter(folder.paths()):
        return ModelSource(uri=uri)
    with tempfile.TemporaryDirectory(prefix="finetune-") as scratch:
        folder.fetch([ADAPTER_CONFIG], Path(scratch))
        try:
            config = json.loads((Path(scratch) / ADAPTER_CONFIG).read_bytes())
            base, revision = str(config[BASE_KEY] or ""), config.get("revision")
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise DiagnosedError(
                Reason.MODEL_INVALID, f"{uri} is a peft adapter whose {ADAPTER_CONFIG} names no base model."
            ) from error
    return ModelSource(uri=_base_uri(base, revision, uri), adapter_uri=uri)


def _base_uri(base: str, revision: str | None, adapter: str) -> str:
    if base.startswith(("s3://", "file:///")):
        return base
    if Path(base).is_absolute() or (base and Path(base).is_dir()):
        return f"file://{Path(base).absolute()}"
    if _HUB_NAME.fullmatch(base):
        return f"hf://{base}" + (f"@{revision}" if revision else "")
    raise DiagnosedError(
        Reason.MODEL_INVALID,
        f"{adapter} is a peft adapter upon {base!r}, which is neither a folder of this machine nor a name on the hub. "
        f"Correct {BASE_KEY} in its {ADAPTER_CONFIG}.",
    )
