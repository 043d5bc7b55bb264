"""A smaller model for the demo: the first layers of the quickstart's base model.

It answers worse, and is there to be compared with: a sweep of mode SmallestModel needs two.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

WEIGHTS, CONFIG = "model.safetensors", "config.json"
LAYERS = 1
_LENGTH_BYTES = 8
"""A safetensors file begins with the length of its header, which is JSON and has the place of each tensor."""


def smaller_model(folder: Path) -> dict[str, bytes]:
    """The files of the smaller model, by their names."""
    others = {file.name: file.read_bytes() for file in sorted(folder.glob("*.json"))}
    config = {**json.loads(others[CONFIG]), "num_hidden_layers": LAYERS}
    weights = first_layers((folder / WEIGHTS).read_bytes())
    return {**others, CONFIG: json.dumps(config).encode(), WEIGHTS: weights}


def first_layers(weights: bytes) -> bytes:
    """The same tensors, without those of later layers."""
    start = _LENGTH_BYTES + int.from_bytes(weights[:_LENGTH_BYTES], "little")
    header = json.loads(weights[_LENGTH_BYTES:start])
    kept: dict[str, object] = {"__metadata__": header.pop("__metadata__", {})}
    data = b""
    for name, tensor in header.items():
        layer = re.search(r"\.layers\.(\d+)\.", name)
        if layer is not None and int(layer[1]) >= LAYERS:
            continue
        begin, end = tensor["data_offsets"]
        kept[name] = {**tensor, "data_offsets": [len(data), len(data) + end - begin]}
        data += weights[start + begin : start + end]
    described = json.dumps(kept).encode()
    described += b" " * (-len(described) % _LENGTH_BYTES)
    return len(described).to_bytes(_LENGTH_BYTES, "little") + described + data
