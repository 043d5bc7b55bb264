"""The URI forms of models and datasets that specs accept."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Annotated
from urllib.parse import unquote

from pydantic import AfterValidator, StringConstraints, ValidationInfo, WithJsonSchema

MODEL_URI_PATTERN = r"^(s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]/[^?#\s]+|hf://[\w.-]+/[\w.-]+(@[\w./-]+)?)$"
DATASET_URI_PATTERN = (
    r"^(s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]/[^?#\s]+"
    r"|hf://datasets/[\w.-]+/[\w.-]+(@(refs/(convert|pr)/)?[\w.-]+)?(/[^?#\s]*)?)$"
)

LONGEST_URI = 1024
_MOST_DECODINGS = 8
FILE_SCHEME = "file:///"
ON_A_LAPTOP = {"files": True}
"""The validation context in which file:///path is a URI too: on a laptop, never in a cluster or the CRD."""


def _of_form(pattern: str) -> AfterValidator:
    """A URI of this form, or a local path if the context allows it."""

    def check(uri: str, info: ValidationInfo) -> str:
        is_path = uri.startswith(FILE_SCHEME) and info.context == ON_A_LAPTOP
        if not is_path and not re.match(pattern, uri):
            raise ValueError(f"should match pattern '{pattern}'")
        return uri

    return AfterValidator(check)


ModelUri = Annotated[
    str,
    StringConstraints(max_length=LONGEST_URI),
    _of_form(MODEL_URI_PATTERN),
    WithJsonSchema({"type": "string", "pattern": MODEL_URI_PATTERN, "maxLength": LONGEST_URI}),
]
DatasetUri = Annotated[
    str,
    StringConstraints(max_length=LONGEST_URI),
    _of_form(DATASET_URI_PATTERN),
    WithJsonSchema({"type": "string", "pattern": DATASET_URI_PATTERN, "maxLength": LONGEST_URI}),
]


@dataclass(frozen=True)
class StorageLocation:
    """An object or folder in S3 or, on a laptop, a local file or folder."""

    bucket: str
    """Empty for a local path."""
    key: str
    """Without a leading slash."""

    @property
    def is_local(self) -> bool:
        """Whether it is a local path."""
        return not self.bucket

    @property
    def uri(self) -> str:
        return f"{FILE_SCHEME}{self.key}" if self.is_local else f"s3://{self.bucket}/{self.key}"

    def join(self, *parts: str) -> StorageLocation:
        """The location below this one."""
        return StorageLocation(self.bucket, "/".join([self.key.rstrip("/"), *parts]).lstrip("/"))


@dataclass(frozen=True)
class HubModel:
    """A model repository on a Hugging Face Hub."""

    repository: str
    revision: str | None


@dataclass(frozen=True)
class HubDataset:
    """Files of a dataset repository on a Hugging Face Hub; `path` is a file, folder or glob; empty means all files."""

    repository: str
    revision: str | None
    path: str

    @property
    def uri(self) -> str:
        revision = "" if self.revision is None else f"@{self.revision}"
        return f"hf://datasets/{self.repository}{revision}" + (f"/{self.path}" if self.path else "")


def parse_s3(uri: str) -> StorageLocation:
    """Split `s3://bucket/key`. Raises ValueError for anything else."""
    scheme, _, rest = uri.partition("://")
    bucket, _, key = rest.partition("/")
    if scheme != "s3" or not bucket or not key:
        raise ValueError(f"{uri!r} is not of the form s3://bucket/key")
    return StorageLocation(bucket, key)


def parse_location(uri: str) -> StorageLocation:
    """Split `s3://bucket/key` or `file:///path`. Raises ValueError for anything else."""
    if uri.startswith(FILE_SCHEME):
        return StorageLocation("", uri.removeprefix(FILE_SCHEME))
    return parse_s3(uri)


def parse_model_uri(uri: str) -> StorageLocation | HubModel:
    """Split a model URI. Raises ValueError if it is not s3://, file:/// or hf://."""
    if uri.startswith("hf://"):
        repository, _, revision = uri.removeprefix("hf://").partition("@")
        return HubModel(repository, revision or None)
    return parse_location(uri)


_HUB_DATASET = re.compile(r"hf://datasets/([^/@]+/[^/@]+)(?:@((?:refs/(?:convert|pr)/)?[^/]+))?(?:/(.*))?")


def parse_hub_dataset(uri: str) -> HubDataset:
    """Split `hf://datasets/org/name@revision/path`. Raises ValueError for anything else."""
    found = _HUB_DATASET.fullmatch(uri)
    if found is None:
        raise ValueError(f"{uri!r} is not of the form hf://datasets/org/name@revision/path")
    repository, revision, path = found.groups()
    return HubDataset(repository, revision, path or "")


def is_allowed(uri: str, patterns: tuple[str, ...]) -> bool:
    """Whether a URI matches one of a class's shell-style patterns (`s3://team-data/*`).

    A Hub repository without a revision is allowed at every revision, a dataset repository with all of its files. A path
    with `..` matches nothing, so that it can't escape a prefix.
    """
    if ".." in uri.split("/"):
        return False
    at_any_revision = _without_revision(uri)
    for pattern in patterns:
        asked = uri if "@" in pattern else at_any_revision
        if fnmatchcase(asked, pattern) or (_is_hub_dataset(pattern) and fnmatchcase(asked, f"{pattern}/*")):
            return True
    return False


def _without_revision(uri: str) -> str:
    """A Hub URI without its revision; any other URI unchanged."""
    if _HUB_DATASET.fullmatch(uri):
        return replace(parse_hub_dataset(uri), revision=None).uri
    return uri.partition("@")[0] if uri.startswith("hf://") else uri


def _is_hub_dataset(pattern: str) -> bool:
    """Whether it names a whole dataset repository, with or without a revision."""
    return _HUB_DATASET.fullmatch(pattern) is not None and not parse_hub_dataset(pattern).path and "*" not in pattern


def is_allowed_url(url: str, patterns: tuple[str, ...]) -> bool:
    """Whether an https:// URL matches one of a class's patterns (`https://images.example.com/*`,
    `https://*.example.com`).

    Host and path are matched separately, so that a `*` in the host can't match into the path. A pattern without a path
    matches every path.
    """
    found = _split_url(url)
    if found is None or _may_climb(found[1]):
        return False
    for pattern in patterns:
        wanted = _split_url(pattern)
        if wanted is not None and fnmatchcase(found[0], wanted[0]) and fnmatchcase(found[1], wanted[1] or "*"):
            return True
    return False


def _may_climb(path: str) -> bool:
    """Whether any server might decode a URL's path to `..`: encoded, twice encoded, `..;x`, `..\\`, full-width dots."""
    for _ in range(_MOST_DECODINGS):
        try:
            decoded = unicodedata.normalize("NFKC", unquote(path, errors="strict")).replace("\\", "/")
        except UnicodeDecodeError:
            return True
        if decoded == path:
            return any(segment.partition(";")[0] in (".", "..") for segment in re.split(r"[/?#]", path))
        path = decoded
    return True


def _split_url(url: str) -> tuple[str, str] | None:
    """Host (lower case, with its port) and path of an https:// URL; None for anything else."""
    scheme, _, rest = url.partition("://")
    host, slash, path = rest.partition("/")
    return (host.lower(), slash + path) if scheme == "https" and host and "?" not in host and "#" not in host else None


def is_below(uri: str, folder: str | None) -> bool:
    """Whether a URI is inside a folder, without `..` in between; False without a folder."""
    if folder is None:
        return False
    root = folder.rstrip("/") + "/"
    return uri.startswith(root) and not {"", ".", ".."} & set(uri.removeprefix(root).split("/"))


def match_glob(pattern: str, path: str) -> bool:
    """Whether a path matches a glob: `*` is anything within a folder, `**` anything, `**/` any number of folders.

    A regular expression could take exponential time in the number of stars.
    """
    ends = {0}  # The positions at which the parts so far may end.
    for part in re.split(r"(\*\*/|\*\*|\*)", pattern):
        if part == "*":
            ends = _within_folder(path, ends)
        elif part in ("**", "**/") and ends:
            after = range(min(ends), len(path) + 1)
            ends = set(after) if part == "**" else ends | {end for end in after if path.endswith("/", 0, end)}
        else:
            ends = {end + len(part) for end in ends if path.startswith(part, end)}
    return len(path) in ends


def _within_folder(path: str, starts: set[int]) -> set[int]:
    """The positions at which a text without / that starts at one of `starts` may end."""
    ends: set[int] = set()
    for start in sorted(starts):
        end = start
        while end not in ends:
            ends.add(end)
            if end == len(path) or path[end] == "/":
                break
            end += 1
    return ends
