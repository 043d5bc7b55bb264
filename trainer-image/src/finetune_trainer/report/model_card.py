"""The model card of a result: README.md with the metadata that hubs read. Pure.

https://huggingface.co/docs/hub/model-cards
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version

from huggingface_hub import ModelCardData

from finetune_api.dataset_reference import PinnedRevisions
from finetune_api.pod_contracts.manifest import Manifest
from finetune_api.pod_contracts.run import ModelSource, TrainRun
from finetune_api.sources import HubModel, parse_model_uri

PACKAGES = ("finetune-operator", "torch", "transformers", "peft", "trl", "accelerate", "datasets")


def model_card(run: TrainRun, checkpoint: Manifest, data_digests: Mapping[str, str], *, is_adapter: bool) -> str:
    """`checkpoint`: what becomes the result. `data_digests`: URI -> `sha256:<hex>` of each dataset file, as preflight
    read it.

    `is_adapter`: the result is an adapter on the base, not a whole model.
    """
    metadata = ModelCardData(
        base_model=_base_name(run.model.uri),
        library_name="peft" if is_adapter else "transformers",
        pipeline_tag="text-generation",
        tags=["finetune-operator", run.method.type.lower(), run.adapter.type.lower()],
    )
    sections: dict[str, Mapping[str, object]] = {
        "Base model": _place(run.model),
        "Teacher": _place(run.teacher),
        "Data": dict(data_digests) | datasets_of(run),
        "Hyperparameters": run.hyperparameters.to_wire() | {"method": run.method.type, **_adapter(run)},
        "Metrics": {
            "step": checkpoint.step,
            "train loss": checkpoint.metrics.get("trainLoss"),
            "validation loss": checkpoint.metrics.get("evalLoss"),
            "trained tokens": int(checkpoint.metrics.get("trainedTokens", 0)) or None,
        },
        "Versions": versions(),
    }
    parts = [f"---\n{metadata.to_yaml()}\n---\n", f"# {run.job.name}\n", _origin(run)]
    for heading, facts in sections.items():
        rows = [f"| {_cell(name)} | {_cell(value)} |" for name, value in facts.items() if value is not None]
        if rows:
            parts.append("\n".join([f"\n## {heading}\n", "| | |", "|---|---|", *rows]) + "\n")
    return "\n".join(parts)


def datasets_of(run: TrainRun) -> dict[str, object]:
    """The revision of each Dataset that the run has read."""
    pinned = run.revisions or PinnedRevisions()
    return {
        f"{name} set": f"{one.split} split of Dataset {one.name} ({one.uid}), revision {one.digest}"
        for name, one in (("training", pinned.training), ("validation", pinned.validation))
        if one is not None
    }


def versions() -> dict[str, str]:
    """The versions of the packages that train."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue  # a checkout that is not installed has no version of its own
    return found


def _place(model: ModelSource | None) -> dict[str, object]:
    return {} if model is None else {"uri": model.uri, "adapter": model.adapter_uri}


def _origin(run: TrainRun) -> str:
    return (
        f"Made by FineTuneJob `{run.job.namespace}/{run.job.name}`, run `{run.job.run_id}`, attempt {run.attempt}, "
        f"with seed {run.hyperparameters.seed}.\n"
    )


def _base_name(uri: str) -> str:
    source = parse_model_uri(uri)
    return source.repository if isinstance(source, HubModel) else uri


def _adapter(run: TrainRun) -> dict[str, object]:
    adapter = run.adapter
    if adapter.type == "Full":
        return {"adapter": "Full"}
    settings = adapter.low_rank
    return {"adapter": f"{adapter.type}, rank {settings.rank}, alpha {settings.alpha}, dropout {settings.dropout}"}


def _cell(value: object) -> str:
    """Text escaped for a cell of a Markdown table."""
    return " ".join(str(value).replace("|", "\\|").split())
