"""Where models and datasets come from: the URI forms that specs accept."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Annotated

from pydantic import StringConstraints

MODEL_URI_PATTERN = r"^(s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]/[^?#\s]+|hf://[\w.-]+/[\w.-]+(@[\w./-]+)?)$"
DATASET_URI_PATTERN = (
    r"^(s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]/[^?#\s]+"
    r"|hf://datasets/[\w.-]+/[\w.-]+(@(refs/(convert|pr)/)?[\w.-]+)?(/[^?#\s]*)?)$"
)

ModelUri = Annotated[str, StringConstraints(pattern=MODEL_URI_PATTERN, max_length=1024)]
DatasetUri = Annotated[str, StringConstraints(pattern=DATASET_URI_PATTERN, max_length=1024)]


@dataclass(frozen=True)
class S3Location:
    """A bucket and a key (no leading slash) in it."""

    bucket: str
    key: str

    @property
    def uri(self) -> str:
        return f"s3://{self.bucket}/{self.key}"

    def join(self, *parts: str) -> S3Location:
        """The location below this one."""
        return S3Location(self.bucket, "/".join([self.key.rstrip("/"), *parts]).lstrip("/"))


@dataclass(frozen=True)
class HubModel:
    """A model repository on a Hugging Face hub."""

    repository: str
    revision: str | None


@dataclass(frozen=True)
class HubDataset:
    """Files of a dataset repository on a Hugging Face hub; `path` is a file, a folder, a glob, or empty: everything."""

    repository: str
    revision: str | None
    path: str

    @property
    def uri(self) -> str:
        revision = "" if self.revision is None else f"@{self.revision}"
        return f"hf://datasets/{self.repository}{revision}" + (f"/{self.path}" if self.path else "")


def parse_s3(uri: str) -> S3Location:
    """Split `s3://bucket/key`. Raises ValueError for anything else."""
    scheme, _, rest = uri.partition("://")
    bucket, _, key = rest.partition("/")
    if scheme != "s3" or not bucket or not key:
        raise ValueError(f"{uri!r} is not of the form s3://bucket/key")
    return S3Location(bucket, key)


def parse_model_uri(uri: str) -> S3Location | HubModel:
    """Split a model URI. Raises ValueError when it is neither s3:// nor hf://."""
    if uri.startswith("hf://"):
        repository, _, revision = uri.removeprefix("hf://").partition("@")
        return HubModel(repository, revision or None)
    return parse_s3(uri)


_HUB_DATASET = re.compile(r"hf://datasets/([^/@]+/[^/@]+)(?:@((?:refs/(?:convert|pr)/)?[^/]+))?(?:/(.*))?")


def parse_hub_dataset(uri: str) -> HubDataset:
    """Split `hf://datasets/org/name@revision/path`. Raises ValueError for anything else."""
    found = _HUB_DATASET.fullmatch(uri)
    if found is None:
        raise ValueError(f"{uri!r} is not of the form hf://datasets/org/name@revision/path")
    repository, revision, path = found.groups()
    return HubDataset(repository, revision, path or "")


def is_allowed(uri: str, patterns: tuple[str, ...]) -> bool:
    """Whether a URI matches one of the shell-style patterns of a class (`s3://team-data/*`).

    A path that climbs (`..`) matches nothing, so that a prefix can't be left.
    """
    if ".." in uri.split("/"):
        return False
    return any(fnmatchcase(uri, pattern) for pattern in patterns)
