"""Where models and datasets come from: the URI forms that specs accept."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Annotated

from pydantic import StringConstraints

MODEL_URI_PATTERN = r"^(s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]/[^?#\s]+|hf://[\w.-]+/[\w.-]+(@[\w./-]+)?)$"
DATASET_URI_PATTERN = r"^s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]/[^?#\s]+$"

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


def is_allowed(uri: str, patterns: tuple[str, ...]) -> bool:
    """Whether a URI matches one of the shell-style patterns of a class (`s3://team-data/*`).

    A path that climbs (`..`) matches nothing, so that a prefix can't be left.
    """
    if ".." in uri.split("/"):
        return False
    return any(fnmatchcase(uri, pattern) for pattern in patterns)


def is_allowed_url(url: str, patterns: tuple[str, ...]) -> bool:
    """Whether an https:// URL matches one of a class's patterns (`https://images.example.com/*`, `https://*.example.com`).

    Host and path are matched each by itself, so that a `*` of the host never reaches into the path. A pattern without
    a path means every path.
    """
    found = _split_url(url)
    if found is None or ".." in found[1].split("/"):
        return False
    for pattern in patterns:
        wanted = _split_url(pattern)
        if wanted is not None and fnmatchcase(found[0], wanted[0]) and fnmatchcase(found[1], wanted[1] or "*"):
            return True
    return False


def _split_url(url: str) -> tuple[str, str] | None:
    """Host (lower case, with its port) and path of an https:// URL; None for anything else."""
    scheme, _, rest = url.partition("://")
    host, slash, path = rest.partition("/")
    return (host.lower(), slash + path) if scheme == "https" and host and "?" not in host and "#" not in host else None
