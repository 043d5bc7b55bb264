"""Dataset: examples of one source or several, checked, cleaned and split once, as an immutable revision."""

from finetune_api.dataset.generation import (
    MOST_COMPLETIONS,
    PROMPTS,
    Generate,
    GeneratedStatus,
    GeneratingModel,
    GenerationContent,
    NotKept,
    Prompts,
)
from finetune_api.dataset.revision import (
    MOST_SOURCES,
    MOST_WARNINGS,
    REVISION_NAME,
    SPLIT_NAMES,
    LeftOut,
    Revision,
    RevisionContent,
    SourceFile,
    SplitStatus,
)
from finetune_api.dataset.spec import MOST_PARTS, SOURCE, Cleaning, DatasetPart, DatasetSpec, DatasetSplit, PartName
from finetune_api.dataset.status import MOST_ERRORS, MOST_RUNS, DatasetStatus, EarlierBuild, Phase

__all__ = [
    "MOST_COMPLETIONS",
    "MOST_ERRORS",
    "MOST_PARTS",
    "MOST_RUNS",
    "MOST_SOURCES",
    "MOST_WARNINGS",
    "PROMPTS",
    "REVISION_NAME",
    "SOURCE",
    "SPLIT_NAMES",
    "Cleaning",
    "DatasetPart",
    "DatasetSpec",
    "DatasetSplit",
    "DatasetStatus",
    "EarlierBuild",
    "Generate",
    "GeneratedStatus",
    "GeneratingModel",
    "GenerationContent",
    "LeftOut",
    "NotKept",
    "PartName",
    "Phase",
    "Prompts",
    "Revision",
    "RevisionContent",
    "SourceFile",
    "SplitStatus",
]
