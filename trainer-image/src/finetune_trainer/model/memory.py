"""The memory that a training needs on an accelerator, estimated before one is requested. Pure.

docs/explanation/preflight.md compares it with measurements.

Weights, gradients and optimizer state can be counted: bytes per parameter, by the precision that they are kept in.
Activations are estimated, by Korthikanti et al., "Reducing Activation Recomputation in Large Transformer Models"
(2022), without the attention matrix, which fused attention never stores, and with the gated MLP of today's models: the
inside of all layers, or, where the activations are recomputed, the inputs of all layers and the inside of one.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from finetune_api.finetunejob import Adapter, Freeze, MemoryEstimate, Parallelism

HALF, FULL = 2, 4
"""Bytes of a number in bfloat16 and in float32."""
NF4 = 0.516
"""The same in 4 bits, with its share of the quantized constants: 4 + 8 / 64 + 32 / (64 x 256) bits."""
MOMENTS = 2
"""AdamW's, of each trained parameter."""
USABLE = 0.9
"""Share of the accelerator's memory; the rest is for the CUDA context, workspaces and fragmentation."""
GIB = 2**30

EMBEDDINGS = ("embed", "wte", "wpe")
HEAD = "lm_head"
NOT_LINEAR = (*EMBEDDINGS, HEAD)
"""Parts of names of matrices that stay whole in 4 bits: embeddings and the output layer."""
LORA_INPUTS = ".lora_A."
"""In the names of an adapter's matrices that read the inputs of what it adapts."""


@dataclass(frozen=True)
class ModelSize:
    """The properties of a model that its memory depends on. Sizes are numbers of elements."""

    parameters: int
    layers: int
    hidden: int
    intermediate: int
    adapter_parameters: int
    adapted_inputs: int
    """Numbers that the adapted matrices of one layer read, for each token."""
    keys_and_values: int = 0
    """Numbers of one layer's keys and values, for each token; fewer than twice `hidden` with grouped queries."""
    linear_parameters: int = 0
    """Of the matrices that QLoRA keeps in 4 bits: all but embeddings, the output layer, and those of experts, which
    transformers makes one weight of."""
    mixture: bool = False
    """Experts compute, of which each token has a few."""
    frozen_parameters: int = 0
    """Of what `adapter.full.freeze` leaves as it is."""
    embedding_parameters: int = 0
    head_parameters: int = 0
    """Of the output layer, and of what it shares with the embeddings, which are then not counted above."""
    teacher_parameters: int = 0
    """Of the frozen model beside it that it learns from."""


@dataclass(frozen=True)
class MethodMemory:
    """What a training method needs in addition to the trained model and its optimizer."""

    sequences_per_example: int = 1
    """Sequences of up to maxLength tokens in a forward pass, for each example of the batch."""
    keeps_reference: bool = False
    """Full fine-tuning keeps a frozen copy of the whole model to compare with; an adapter is only disabled."""
    can_be_sharded: bool = True
    """Whether parallelism.strategy FSDP is supported."""


@dataclass(frozen=True)
class Plan:
    """The properties of a run that its memory depends on."""

    full: bool
    """Every weight is trained, not an adapter."""
    sharded: bool
    processes: int
    micro_batch_size: int
    max_length: int
    method: MethodMemory = MethodMemory()
    nodes: int = 1
    quantized: bool = False
    """The model is kept in 4 bits."""
    dropout: bool = False
    """Of the adapter's inputs."""
    gradient_checkpointing: bool = True
    """Activations are recomputed in the backward pass instead of being kept."""

    @property
    def tokens(self) -> int:
        """In one forward pass of one process."""
        return self.micro_batch_size * self.max_length * self.method.sequences_per_example

    @property
    def has_reference(self) -> bool:
        """Whether a second, frozen model is kept as the reference; an adapter is only disabled."""
        return self.method.keeps_reference and self.full


def model_size(
    config: Any, shapes: Mapping[str, tuple[int, ...]], adapter_shapes: Mapping[str, tuple[int, ...]], adapter: Adapter
) -> ModelSize | None:
    """The size of a model by its config and the shapes of its weights; None when the config lacks what is needed.

    Weights go by the names that they have in memory: what files have of each expert is one weight there, of three
    dimensions. `adapter_shapes`: those of the adapter that is trained; empty where all weights are.
    """
    layers, hidden = getattr(config, "num_hidden_layers", None), getattr(config, "hidden_size", None)
    if not layers or not hidden:
        return None
    matrices = {name: shape for name, shape in shapes.items() if len(shape) == 2}
    return ModelSize(
        parameters=_count(shapes),
        layers=layers,
        hidden=hidden,
        intermediate=_intermediate(config, hidden),
        adapter_parameters=_count(adapter_shapes),
        adapted_inputs=sum(shape[1] for name, shape in adapter_shapes.items() if LORA_INPUTS in name) // layers,
        keys_and_values=_keys_and_values(config, hidden),
        linear_parameters=_count({name: shape for name, shape in matrices.items() if is_linear(name)}),
        mixture=bool(getattr(config, "num_experts_per_tok", None)),
        embedding_parameters=_embeddings(matrices) if _head(matrices) else 0,
        head_parameters=_head(matrices) or _embeddings(matrices),
        frozen_parameters=_count({name: shape for name, shape in shapes.items() if is_frozen(name, adapter.freeze)}),
    )


def _intermediate(config: Any, hidden: int) -> int:
    """The width of the MLP that computes a token in one layer; of experts, that of the chosen and shared ones
    together."""
    dense = getattr(config, "intermediate_size", None) or 4 * hidden
    chosen = getattr(config, "num_experts_per_tok", None)
    if not chosen:
        return int(dense)
    expert = getattr(config, "moe_intermediate_size", None) or dense
    return int(max(dense, chosen * expert + (getattr(config, "shared_expert_intermediate_size", None) or 0)))


def _embeddings(shapes: Mapping[str, tuple[int, ...]]) -> int:
    return _count({name: shape for name, shape in shapes.items() if any(part in name for part in EMBEDDINGS)})


def _head(shapes: Mapping[str, tuple[int, ...]]) -> int:
    return _count({name: shape for name, shape in shapes.items() if HEAD in name})


def _keys_and_values(config: Any, hidden: int) -> int:
    heads = getattr(config, "num_attention_heads", None) or 1
    groups = getattr(config, "num_key_value_heads", None) or heads
    return int(2 * groups * (getattr(config, "head_dim", None) or hidden // heads))


def is_frozen(weight: str, freeze: Freeze | None) -> bool:
    """Whether `adapter.full.freeze` leaves the weight of this name as it is."""
    if freeze is None:
        return False
    layer = re.search(r"\.(\d+)\.", weight)
    if layer is not None:
        return int(layer[1]) < freeze.layers
    return freeze.embeddings and any(part in weight for part in EMBEDDINGS)


def is_linear(weight: str) -> bool:
    """Whether the matrix of this name is a linear layer's, without the output layer."""
    module, _, kind = weight.rpartition(".")
    return kind == "weight" and not any(part in module for part in NOT_LINEAR)


def plan_of(
    adapter: Adapter,
    parallelism: Parallelism,
    micro_batch_size: int,
    max_length: int,
    method: MethodMemory = MethodMemory(),
) -> Plan:
    """The Plan of a run's configuration. A single process shards nothing."""
    processes = parallelism.nodes * parallelism.processes_per_node
    return Plan(
        full=adapter.type == "Full",
        sharded=parallelism.strategy == "FSDP" and processes > 1,
        processes=processes,
        micro_batch_size=micro_batch_size,
        max_length=max_length,
        method=method,
        nodes=parallelism.nodes,
        quantized=adapter.type == "QLoRA",
        dropout=adapter.low_rank.dropout > 0,
    )


def estimate(model: ModelSize, plan: Plan, accelerator: int | None) -> MemoryEstimate:
    """The memory of one process on its accelerator, in bytes. `accelerator`: the accelerator's memory in bytes."""
    share = plan.processes if plan.sharded else 1
    trained = model.parameters - model.frozen_parameters if plan.full else model.adapter_parameters
    weight_bytes = FULL if plan.full else HALF
    saved = model.linear_parameters * (HALF - NF4) if plan.quantized else 0
    weights = math.ceil((model.parameters * weight_bytes - saved) / share)
    if plan.quantized:
        weights += HALF * model.hidden * model.intermediate  # the matrix that computes, in bfloat16
    layer = (model.parameters - model.embedding_parameters - model.head_parameters) // model.layers
    if plan.sharded:
        weights += HALF * (2 * layer + model.head_parameters)  # the layer that computes, and the one fetched ahead
    elif plan.full:
        weights += HALF * model.parameters  # the copies that autocast computes with
    if plan.has_reference:
        weights += HALF * model.parameters
    buckets = 2 if plan.processes > 1 and not plan.sharded else 1  # DDP keeps gradients in its buckets too
    adapter = 0 if plan.full else math.ceil(model.adapter_parameters * FULL / share)
    gradients = math.ceil(trained * FULL / share) * buckets
    if plan.sharded and plan.full:
        gradients += HALF * (layer + model.head_parameters) + FULL * layer  # whole, and in float32 to be reduced
    optimizer = math.ceil(trained * MOMENTS * FULL / share)
    activations = max(activation_bytes(model, plan), _reduced_last(model) if plan.sharded and plan.full else 0)
    teacher = HALF * model.teacher_parameters
    return MemoryEstimate(
        weights=weights,
        teacher=teacher,
        adapter=adapter,
        gradients=gradients,
        optimizer=optimizer,
        activations=activations,
        total=weights + teacher + adapter + gradients + optimizer + activations,
        accelerator=accelerator,
        host=_host_bytes(model, plan, trained * FULL),
    )


def _reduced_last(model: ModelSize) -> int:
    """The bytes with which sharded gradients of embeddings and output layer are reduced, after all activations."""
    return 2 * HALF * model.embedding_parameters + FULL * (model.embedding_parameters + model.head_parameters)


def _host_bytes(model: ModelSize, plan: Plan, trained: int) -> int:
    """The host memory of the first Pod. `trained`: the bytes of what is trained.

    The first process holds a sharded model whole, when it is loaded and when the result is written; other models, and
    references, go straight to the accelerator. Each checkpoint is copied to host memory, shared by all processes.
    """
    checkpoint = math.ceil(trained * (1 + MOMENTS) / plan.nodes)
    whole = (FULL if plan.full else HALF) * model.parameters if plan.sharded else 0
    return checkpoint + whole


def activation_bytes(model: ModelSize, plan: Plan) -> int:
    """The bytes of activations that one forward pass keeps for its backward pass."""
    between = FULL if plan.full and not plan.sharded else HALF  # autocast keeps the residual stream as the weights are
    inputs = between * model.hidden
    # What a layer keeps of each token. The two norms' inputs in float32 and their outputs; queries, keys and values;
    # attention's output; of the MLP the gate before and after its activation, the other branch, and their product.
    inside = 2 * FULL * model.hidden + HALF * (4 * model.hidden + model.keys_and_values + 4 * model.intermediate)
    if plan.full:
        inside += HALF * 5 * model.hidden  # autocast's copies of the norms' outputs, one for each matrix
    elif plan.dropout:
        inside += (HALF + 1) * model.adapted_inputs  # what is left of LoRA's inputs, and the mask
    if plan.gradient_checkpointing:
        return plan.tokens * (model.layers * inputs + inside)
    return plan.tokens * model.layers * inside


def fits(memory: MemoryEstimate) -> bool:
    """Whether a training can be expected to fit. True for an accelerator of unknown memory."""
    return memory.accelerator is None or memory.total <= USABLE * memory.accelerator


def plan_micro_batches(model: ModelSize, plan: Plan, sizes: list[int], accelerator: int) -> Plan:
    """The fastest plan that fits: without gradient checkpointing if possible, in the largest micro-batches.

    `sizes`: the possible micro-batch sizes. If nothing fits, the plan that needs the least memory. A mixture of experts
    keeps the plan, with recomputed activations: how many tokens an expert gets is not known, and none was measured.
    """
    if model.mixture:
        return replace(plan, gradient_checkpointing=True)
    for checkpointing in (False, True):
        for examples in sorted(sizes, reverse=True):
            candidate = replace(plan, micro_batch_size=examples, gradient_checkpointing=checkpointing)
            if fits(estimate(model, candidate, accelerator)):
                return candidate
    return replace(plan, micro_batch_size=min(sizes), gradient_checkpointing=True)


def advise(model: ModelSize, plan: Plan, memory: MemoryEstimate) -> str | None:
    """A warning for a training that is not expected to fit: how much it needs, and which fields would make it fit."""
    if memory.accelerator is None or fits(memory):
        return None
    needed = f"Training needs about {memory.total / GIB:.1f} GiB on each accelerator, which has "
    needed += f"{memory.accelerator / GIB:.1f} GiB: it may run out of memory. "
    for smaller, fields in _smaller(plan):
        if fits(estimate(model, smaller, memory.accelerator)):
            return needed + f"With {fields} it should fit."
    return needed + "Use a smaller model, or a FineTuneClass with larger accelerators."


def _smaller(plan: Plan) -> list[tuple[Plan, str]]:
    """Plans that need less memory, the smallest change first, each with the fields to set."""
    options: list[tuple[Plan, str]] = []
    if plan.micro_batch_size > 1:
        options.append((replace(plan, micro_batch_size=1), f"hyperparameters.batchSize {plan.processes}"))
    if plan.processes > 1 and not plan.sharded and not plan.quantized and plan.method.can_be_sharded:
        options.append((replace(plan, sharded=True), "parallelism.strategy FSDP"))
    length = plan.max_length // 2
    while length >= 256:
        shorter = replace(plan, micro_batch_size=1, max_length=length)
        options.append((shorter, f"hyperparameters.maxLength {length} and batchSize {plan.processes}"))
        length //= 2
    if plan.full:
        options.append((replace(plan, full=False), "adapter.type LoRA"))
        small = replace(plan, full=False, micro_batch_size=1)
        options.append((small, f"adapter.type LoRA and hyperparameters.batchSize {plan.processes}"))
    return options


def _count(shapes: Mapping[str, tuple[int, ...]]) -> int:
    return sum(math.prod(shape) for shape in shapes.values())
