"""A model that is built on the meta device, sharded and filled has the numbers of one that is loaded as a whole."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed
from torch.distributed.tensor import DTensor
from transformers import AutoModelForCausalLM

from finetune_api.finetunejob import Adapter, Freeze, Full, LoRA
from finetune_trainer.distributed.ranks import Ranks
from finetune_trainer.distributed.sharding import fill, shard
from finetune_trainer.model.adapters import load_trainable_model
from finetune_trainer.model.loading import META, LocalModel
from tests.integration.trainer.distributed import two_ranks
from tests.integration.trainer.distributed.tiny_configs import EXPERTS, LLAMA, TIED
from tests.integration.trainer.runs import Workplace

LOW_RANK = Adapter(lora=LoRA(rank=4))
FROZEN = Adapter(type="Full", full=Full(freeze=Freeze(embeddings=True, layers=1)))
MERGED = Adapter(lora=LoRA(rank=4, inherited="Merge"))


@pytest.fixture
def gang_of_one() -> Iterator[None]:
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.usefixtures("gang_of_one")
@pytest.mark.parametrize(
    ("config", "adapter", "inherits"),
    [
        (LLAMA, LOW_RANK, False),
        (LLAMA, FROZEN, False),
        (TIED, Adapter(type="Full"), False),
        (EXPERTS, LOW_RANK, False),
        (LLAMA, LOW_RANK, True),
        (LLAMA, MERGED, True),
    ],
    ids=["LoRA", "Full, frozen", "Full, tied weights", "LoRA, experts", "an inherited adapter", "a merged adapter"],
)
def test_it_is_the_model_that_is_loaded_as_a_whole(
    workplace: Workplace, tmp_path: Path, config: Any, adapter: Adapter, inherits: bool
) -> None:
    model = AutoModelForCausalLM.from_config(config)
    model.save_pretrained(tmp_path / "base")
    run = workplace.train_run("sharding", adapter=adapter)
    local = LocalModel(tmp_path / "base")
    if inherits:
        tuned = load_trainable_model(workplace.train_run("sharding", adapter=LOW_RANK), local)
        for name, weight in tuned.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(weight)
        tuned.save_pretrained(tmp_path / "adapter")
        local = LocalModel(tmp_path / "base", tmp_path / "adapter")
    whole = load_trainable_model(run, local)

    built = load_trainable_model(run, local, META)
    assert all(tensor.is_meta for tensor in (*built.parameters(), *built.buffers()))
    shard(built, Ranks(0, 1, 0, 1, "localhost", 0), bfloat16=False)
    fill(built, whole)

    found, expected = dict(built.named_parameters()), dict(whole.named_parameters())
    assert found.keys() == expected.keys()
    for name, weight in expected.items():
        assert isinstance(found[name], DTensor), name
        assert found[name].requires_grad == weight.requires_grad, name
        torch.testing.assert_close(found[name].full_tensor(), weight, rtol=0, atol=0)
    tokens = torch.arange(20)[None]
    torch.testing.assert_close(built(input_ids=tokens).logits, whole(input_ids=tokens).logits, rtol=0, atol=0)


IN_BFLOAT16 = 0.05
"""Full: autocast rounds what it computes with, the sharded model its weights."""


def test_two_processes_have_the_gradients_of_one(tmp_path: Path) -> None:
    """In float32 and with LoRA to rounding: their sums are of the same numbers."""
    torch.multiprocessing.spawn(two_ranks.compare, (tmp_path,), nprocs=two_ranks.RANKS)
    differences = json.loads((tmp_path / "differences.json").read_text())
    assert len(differences) == 24
    for variant, difference in differences.items():
        assert difference < (IN_BFLOAT16 if "Full" in variant and "bf16" in variant else 1e-5), differences


def test_embeddings_are_not_gathered_for_longer_than_they_compute(gang_of_one: None) -> None:
    """The output layer is: its backward pass comes first. Where they share a weight, that is the output layer's."""
    for config, apart in ((LLAMA, True), (TIED, False)):
        model = shard(AutoModelForCausalLM.from_config(config), Ranks(0, 1, 0, 1, "localhost", 0), bfloat16=False)
        model(input_ids=torch.arange(20)[None])
        assert isinstance(model.get_input_embeddings().weight, DTensor) is apart
        assert not isinstance(model.get_output_embeddings().weight, DTensor)
