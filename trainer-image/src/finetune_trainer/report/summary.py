"""The summary of a report: how the losses developed, how long training took, where the model is and how to load it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from finetune_api.pod_contracts.manifest import Manifest
from finetune_api.pod_contracts.run import TrainRun
from finetune_api.sources import parse_location
from finetune_trainer.report.measures import LOSSES, Measure
from finetune_trainer.report.report import Samples, Summary, readable
from finetune_trainer.storage.local_folders import local_path

SECONDS_PER_HOUR = 3600
LEAST_CHANGE = 0.01
"""The least relative change of the training loss that counts as learning."""


@dataclass(frozen=True)
class ResultOrigin:
    """Where the result is, what it is, and what it was trained on."""

    result_uri: str
    is_adapter: bool
    accelerator: str | None
    """The name of the device; None on CPUs."""
    adapted: str | None = None
    """Which modules were trained with an adapter, and which were not; None if all weights were trained."""


def summarize(
    run: TrainRun,
    chosen: Manifest,
    log: Sequence[Mapping[str, float]],
    samples: Samples,
    origin: ResultOrigin,
    measures: Sequence[Measure] = LOSSES,
) -> Summary:
    """`chosen`: the checkpoint that becomes the result. `log`: the Trainer's. `measures`: the method's."""
    return Summary(
        headlines=tuple(_headlines(chosen, log, samples, measures)),
        facts=dict(_facts(run, chosen, log, origin)),
        loading=_loading(run, origin),
    )


def _headlines(
    chosen: Manifest, log: Sequence[Mapping[str, float]], samples: Samples, measures: Sequence[Measure]
) -> Iterator[str]:
    for measure in reversed(measures):
        key, name = measure.key, measure.name.removeprefix("full ").capitalize()  # "full" is OpenAI's word
        measured = [(int(entry["step"]), entry[key]) for entry in log if key in entry and entry["step"] <= chosen.step]
        if len(measured) > 1:
            (first_step, first), (step, last) = measured[0], measured[-1]
            improved = last > first if measure.rises else last < first
            way = "from" if improved else f"did not {'rise' if measure.rises else 'fall'}: from"
            yield f"{name}: {way} {readable(first)} at step {first_step} to {readable(last)} at step {step}."
        elif measured and measure.of_evaluations:
            yield f"{name}: {readable(measured[0][1])} at step {measured[0][0]}, the first that was evaluated."
    if (nothing := unchanged_loss(log, measures)) is not None:
        yield nothing
    answered = [sample for sample in samples.items if sample.reference]
    if answered:
        before = sum(sample.before.strip() == sample.reference.strip() for sample in answered)
        after = sum(sample.after.strip() == sample.reference.strip() for sample in answered)
        yield (
            f"Of the {len(answered)} samples below, the model answered {before} word for word like the reference "
            f"before its training, and {after} after it."
        )
    yield "An Evaluation says how much better the model is than its base, on examples that neither has seen."


def unchanged_loss(log: Sequence[Mapping[str, float]], measures: Sequence[Measure] = LOSSES) -> str | None:
    """A warning if the mean training loss of the last tenth of the steps equals that of the first tenth, else None.

    None too where the loss is none of the measures: that of rewards says nothing.
    """
    if LOSSES[0] not in measures:
        return None
    losses = [entry["loss"] for entry in log if "loss" in entry]
    end = max(1, len(losses) // 10)
    if len(losses) < 2 * end:
        return None
    first, last = (sum(part) / end for part in (losses[:end], losses[-end:]))
    if abs(last - first) >= LEAST_CHANGE * abs(first):
        return None
    return (
        f"The training loss has hardly changed ({first:.4f} at first, {last:.4f} in the end): the model has learned "
        "next to nothing. Raise hyperparameters.learningRate (five times is a start) or hyperparameters.epochs."
    )


def _facts(
    run: TrainRun, chosen: Manifest, log: Sequence[Mapping[str, float]], origin: ResultOrigin
) -> Iterator[tuple[str, object]]:
    seconds = next((entry["train_runtime"] for entry in reversed(log) if "train_runtime" in entry), None)
    if seconds is not None:
        yield f"training time of attempt {run.attempt}", to_words(seconds)
        devices = run.parallelism.nodes * run.parallelism.processes_per_node
        if origin.accelerator is not None:
            hours = seconds * devices / SECONDS_PER_HOUR
            yield "accelerator hours of it", f"{readable(hours)} ({devices} x {origin.accelerator})"
    if "trainedTokens" in chosen.metrics:
        yield "trained tokens", readable(int(chosen.metrics["trainedTokens"]))
    yield "model", _place(origin.result_uri)
    yield "it is", f"an adapter upon {run.model.uri}" if origin.is_adapter else "a whole model"
    if origin.adapted is not None:
        yield "trained", origin.adapted


def to_words(seconds: float) -> str:
    """`41 s`, `12 min 5 s`, or `3 h 7 min`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _place(uri: str) -> str:
    location = parse_location(uri)
    return str(local_path(location)) if location.is_local else uri


def _loading(run: TrainRun, origin: ResultOrigin) -> str:
    """Commands and code that load the model."""
    place = _place(origin.result_uri)
    folder, fetch = place, ""
    if place == origin.result_uri:  # in a bucket
        folder, fetch = "tuned", f"aws s3 cp --recursive {place} tuned\n\n"
    base_is_stored = run.model.uri.startswith("s3://")
    if not origin.is_adapter:
        lines = [
            "from transformers import AutoModelForCausalLM, AutoTokenizer",
            f'model = AutoModelForCausalLM.from_pretrained("{folder}")',
        ]
    elif base_is_stored:
        fetch += f"aws s3 cp --recursive {run.model.uri} base\n\n"
        lines = [
            "from peft import PeftModel",
            "from transformers import AutoModelForCausalLM, AutoTokenizer",
            f'model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained("base"), "{folder}")',
        ]
    else:
        lines = [
            "from peft import AutoPeftModelForCausalLM",
            "from transformers import AutoTokenizer",
            f'model = AutoPeftModelForCausalLM.from_pretrained("{folder}")',
        ]
    return fetch + "\n".join([*lines, f'tokenizer = AutoTokenizer.from_pretrained("{folder}")'])
