"""datasetRef: a split of a Dataset, and the revision of it that a run has pinned."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from finetune_api.base import ApiModel, Line, Name

SplitName = Literal["training", "validation", "test"]


def split_file(name: SplitName) -> str:
    """The name of a split's file in the folder of a revision."""
    return f"{name}.jsonl"


class DatasetRef(ApiModel):
    """A split of the revision that a Dataset of the namespace has when the run starts."""

    name: Name = Field(description="Its name.")
    split: SplitName = Field(description="One that it has.")


class PinnedRevision(ApiModel):
    """The revision of a Dataset that the run reads, whatever becomes of the Dataset."""

    name: Line = Field(description="Name of the Dataset.")
    uid: Line = Field(description="Its UID.")
    split: SplitName = Field(description="Split that is read.")
    digest: Line = Field(description="Digest of the revision.")
    uri: Line = Field(description="Folder of the revision.")

    @property
    def file_uri(self) -> str:
        """The URI of the split's file."""
        return f"{self.uri.rstrip('/')}/{split_file(self.split)}"


class PinnedRevisions(ApiModel):
    """What each datasetRef of a FineTuneJob stands for in this run."""

    training: PinnedRevision | None = None
    validation: PinnedRevision | None = None
