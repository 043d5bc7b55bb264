"""Graders, gates and templates that can't work, also a Dataset's, found before anything runs."""

from __future__ import annotations

from collections.abc import Sequence

from finetune_api.dataset import DatasetSpec, Generate
from finetune_api.evaluation import EvaluationSpec
from finetune_api.graders import Grader
from finetune_grading.graders.interface import InvalidGraderError
from finetune_grading.registered_graders import check_graders
from finetune_grading.templates import TemplateError, variables

MOST_SOURCES_BYTES = 512 * 1024
"""Of all Python graders: half of what a ConfigMap may have."""
MOST_SOURCES_BYTES_OF_A_DATASET = 64 * 1024
MOST_BYTES_OF_GENERATE = 192 * 1024
"""A Dataset's run configuration is in annotations, which may have 256 KiB."""


def grading_problem(spec: EvaluationSpec) -> str | None:
    """The first one, with its field; None if all are valid. No I/O: the plugin checks files by it too."""
    if (size := _bytes_of_sources(spec.graders)) > MOST_SOURCES_BYTES:
        return (
            f"spec.graders: the sources of Python graders have {size:,} bytes together, and may have "
            f"{MOST_SOURCES_BYTES:,}. Shorten them, or use a second Evaluation."
        )
    try:
        graders = check_graders(spec.graders)
    except InvalidGraderError as error:
        return str(error)
    comparing = {grader.name for grader in graders if grader.compares}
    for at, gate in enumerate(spec.gates):
        if gate.grader in comparing and (gate.minimum_delta is not None or gate.maximum_delta is not None):
            return (
                f"spec.gates[{at}]: the score by {gate.grader!r} is a comparison with the baseline already; use "
                "`minimum` (0.5: as often better as worse) instead of a delta."
            )
    labels = [
        (f"graders[{at}] calibration.label", grader.calibration.label)
        for at, grader in enumerate(spec.graders)
        if grader.calibration is not None
    ]
    by = [] if spec.dataset.cluster_by is None else [("dataset.clusterBy", spec.dataset.cluster_by)]
    slices = [(f"dataset.slices[{at}]", text) for at, text in enumerate(spec.dataset.slices)]
    for place, template in [*labels, *by, *slices]:
        try:
            of_outputs = [name for name in variables(template) if not name.startswith("item.")]
        except TemplateError as error:
            return f"spec.{place}: {error}"
        if of_outputs:
            message = f"{{{{{of_outputs[0]}}}}} is of an output; use only fields of the example ({{{{item.<field>}}}})."
            return f"spec.{place}: {message}"
    return None


def dataset_problem(spec: DatasetSpec) -> str | None:
    """Why a Dataset can't be built: by its graders, or since spec.split.by can't be rendered for its lines."""
    return (None if spec.generate is None else _generation_problem(spec.generate)) or _grouping_problem(spec)


def _generation_problem(generate: Generate) -> str | None:
    graders = generate.graders
    if (size := _bytes_of_sources(graders)) > MOST_SOURCES_BYTES_OF_A_DATASET:
        return (
            f"spec.generate.graders: the sources of Python graders have {size:,} bytes together, and may have "
            f"{MOST_SOURCES_BYTES_OF_A_DATASET:,}. Shorten them."
        )
    if (size := len(generate.model_dump_json(by_alias=True).encode(errors="replace"))) > MOST_BYTES_OF_GENERATE:
        return (
            f"spec.generate.graders: spec.generate has {size:,} bytes as JSON with them, and may have "
            f"{MOST_BYTES_OF_GENERATE:,}. Shorten schemas, sources and the prompts of models that grade, or grade by "
            "fewer."
        )
    try:
        check_graders(graders)
    except InvalidGraderError as error:
        return f"spec.generate.graders: {error.grader!r}: {error.problem}"
    return None


def _bytes_of_sources(graders: Sequence[Grader]) -> int:
    return sum(len(one.python.source.encode(errors="replace")) for one in graders if one.python)


def _grouping_problem(spec: DatasetSpec) -> str | None:
    if (template := spec.split.by) is None:
        return None
    try:
        names = variables(template)
    except TemplateError as error:
        return f"spec.split.by: {error}"
    if not names or any(not name.startswith("item.") for name in names):
        return (
            "spec.split.by names a field of each line, such as {{item.document}}: there are no outputs of models here."
        )
    return None
