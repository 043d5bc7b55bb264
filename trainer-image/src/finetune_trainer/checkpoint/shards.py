"""The tensors of a training as files: every process writes a shard, and any number of processes read them back.

The format is the safetensors form of torch.distributed.checkpoint (DCP): one file a process, in whose header
`DCP_SHARDING_INFO` says where each part lies in its whole tensor. DCP decides who writes what (what all processes
hold is spread over them) and reads (`HuggingFaceStorageReader`). The writing is done here: a file is laid out once in
host memory and then filled at every save, so that a save costs training one copy, and the upload none.

https://docs.pytorch.org/docs/stable/distributed.checkpoint.html
https://huggingface.co/docs/safetensors/index#format
"""

from __future__ import annotations

import json
import math
import mmap
import re
import threading
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import structlog
import torch
from safetensors import SafetensorError, safe_open
from torch.distributed.checkpoint import DefaultSavePlanner, HuggingFaceStorageReader, load
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.planner import WriteItem

from finetune_api.conditions import Reason
from finetune_trainer.distributed.gang import Gang
from finetune_trainer.process.failures import DiagnosedError, first_line

SHARDING_INFO = "DCP_SHARDING_INFO"
DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
HEADER_ALIGNMENT = 8
SHARD_NAME = re.compile(r"^shard-\d+-of-(\d+)\.safetensors$")

_log = structlog.get_logger()


class ShardWriter:
    """This process's file of a set of tensors, in host memory, filled again at every save.

    The names, shapes and sharding of the tensors must not change. The memory is allocated in a background thread, which
    takes about a second per gigabyte, so that the first copy does not wait for it.
    """

    def __init__(self, gang: Gang, tensors: Mapping[str, torch.Tensor]) -> None:
        """Agree on which process writes which part, and allocate the file. Called by all processes of the gang."""
        self.name = f"shard-{gang.ranks.rank + 1:05d}-of-{gang.ranks.world_size:05d}.safetensors"
        self._planner = DefaultSavePlanner(flatten_state_dict=False)
        self._items = _share(gang, self._planner, tensors)
        header, starts, size = _layout(self._items)
        self._memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self._failure: BaseException | None = None
        device = torch.cuda.current_device() if torch.cuda.is_available() else None
        self._ready = threading.Thread(target=self._prepare, args=[header, device], name="layout", daemon=True)
        self._ready.start()
        self._parts = [
            torch.frombuffer(
                self._memory, dtype=_tensor(item).properties.dtype, count=_count(item), offset=start
            ).reshape(_tensor(item).chunk.sizes)
            for item, start in zip(self._items, starts, strict=True)
        ]

    def copy(self, tensors: Mapping[str, torch.Tensor]) -> memoryview:
        """The file with the current values of the tensors, valid until the next copy.

        Raises what made the allocation fail.
        """
        self._ready.join()
        if self._failure is not None:
            raise self._failure
        self._planner.set_up_planner(dict(tensors))
        on_gpu = False
        for item, part in zip(self._items, self._parts, strict=True):
            value: Any = self._planner.resolve_data(item)
            on_gpu = on_gpu or value.is_cuda
            part.copy_(value.detach(), non_blocking=True)
        if on_gpu:
            torch.cuda.current_stream().synchronize()
        return memoryview(self._memory)

    def _prepare(self, header: bytes, device: int | None) -> None:
        try:
            _lay_out(self._memory, header, device)
        except BaseException as error:  # not lost: the next copy raises it
            self._failure = error


def read_into(folder: Path, tensors: Mapping[str, torch.Tensor]) -> None:
    """Set tensors, whole or sharded, to what the files below `folder` hold, however many processes wrote them.

    Raises DiagnosedError (CheckpointCorrupt) when they hold other tensors. DCP's own exception derives from
    BaseException, and would end the process without a diagnosis.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")  # as was asked for
        try:
            load(dict(tensors), storage_reader=HuggingFaceStorageReader(str(folder)), no_dist=True)
        except CheckpointException as error:
            cause = next((failure for failure, _ in error.failures.values()), error)
            raise DiagnosedError(
                Reason.CHECKPOINT_CORRUPT,
                f"The checkpoint's {folder.name} is not that of this model: {first_line(cause)} Remove the run's "
                "checkpoints, or start over: change spec.runId.",
            ) from error


def refuse_unreadable(folder: Path) -> None:
    """Raises ValueError when the files of a folder are not a complete set that `ShardWriter`s have written."""
    files = sorted(folder.glob("*.safetensors"))
    for file in files:
        try:
            with safe_open(file, framework="pt") as opened:
                json.loads((opened.metadata() or {})[SHARDING_INFO])
        except (SafetensorError, KeyError, ValueError, OSError) as error:
            raise ValueError(f"{folder.name}/{file.name} can't be read: {first_line(error)}") from error
    of = {int(found[1]) for file in files if (found := SHARD_NAME.match(file.name)) is not None}
    if of and of != {len(files)}:
        raise ValueError(f"{folder.name} has {len(files)} shards of {max(of)}")


def _share(gang: Gang, planner: DefaultSavePlanner, tensors: Mapping[str, torch.Tensor]) -> list[WriteItem]:
    """The parts that this process writes, in order of decreasing alignment, as the format requires."""
    planner.set_up_planner(dict(tensors), is_coordinator=gang.leads)
    plans = gang.gather(planner.create_local_plan)
    shared: Any = gang.from_leader(lambda: planner.create_global_plan(plans)[0])
    items = [item for item in shared[gang.ranks.rank].items if _count(item) > 0]
    return sorted(items, key=lambda item: (-_tensor(item).properties.dtype.itemsize, item.index.fqn))


def _layout(items: list[WriteItem]) -> tuple[bytes, list[int], int]:
    """The header of the file with these parts, and in bytes the offset of each part and the size of the file."""
    entries: dict[str, object] = {}
    offsets: dict[str, object] = {}
    begins, end = [], 0
    for item in items:
        begin, end = end, end + _count(item) * _tensor(item).properties.dtype.itemsize
        begins.append(begin)
        entries[item.index.fqn] = {
            "dtype": DTYPES[_tensor(item).properties.dtype],
            "shape": list(_tensor(item).chunk.sizes),
            "data_offsets": [begin, end],
        }
        offsets[item.index.fqn] = {"saved_offsets": list(_tensor(item).chunk.offsets)}
    metadata = {"format": "pt", "DCP_VERSION": "1.0", SHARDING_INFO: json.dumps(offsets)}
    text = json.dumps({"__metadata__": metadata, **entries}).encode()
    text += b" " * (-len(text) % HEADER_ALIGNMENT)
    header = len(text).to_bytes(8, "little") + text
    return header, [len(header) + begin for begin in begins], len(header) + end


def _lay_out(memory: mmap.mmap, header: bytes, device: int | None) -> None:
    """Write the file's header and touch all its memory, pinned if there is a GPU.

    `device`: the process's; a new thread starts with device 0. Copying to memory that can't be pinned is only slower.
    """
    memory[: len(header)] = header
    torch.frombuffer(memory, dtype=torch.uint8)[len(header) :].zero_()
    if device is None:
        return
    from torch.cuda import _pin_memory_utils  # what DCP pins with; pin_memory=True rounds up to a power of two

    torch.cuda.set_device(device)
    try:
        _pin_memory_utils.pin_memory(torch.frombuffer(memory, dtype=torch.uint8).data_ptr(), len(memory))
    except RuntimeError as error:
        _log.warning(f"{len(memory) / 2**30:.1f} GiB of memory for saves are not pinned: {first_line(error)}")


def _tensor(item: WriteItem) -> Any:
    return item.tensor_data


def _count(item: WriteItem) -> int:
    return math.prod(_tensor(item).chunk.sizes)
