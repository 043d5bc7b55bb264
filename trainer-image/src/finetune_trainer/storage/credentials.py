"""The storage's credentials: files of a mounted Secret, read again for every request.

The kubelet replaces the files of a rotated Secret all at once, by turning the link `..data` to a new folder; so one
reading is of one folder, and a request after the rotation is signed with the new keys.
https://kubernetes.io/docs/concepts/storage/volumes/#secret
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from botocore.credentials import CredentialProvider, Credentials, ReadOnlyCredentials
from botocore.exceptions import BotoCoreError, PartialCredentialsError
from botocore.session import Session

ACCESS_KEY_FILE = "AWS_ACCESS_KEY_ID"
SECRET_KEY_FILE = "AWS_SECRET_ACCESS_KEY"  # noqa: S105
SESSION_TOKEN_FILE = "AWS_SESSION_TOKEN"  # noqa: S105
ATOMIC_LINK = "..data"
HIDDEN = "[hidden]"


def give_credentials(session: Session, directory: Path) -> None:
    """Let the session find credentials in `directory` if there is one, else by AWS's chain (AWS_*, a pod identity).

    The node's own role is left out: it is not the tenant's.
    """
    chain = session.get_component("credential_provider")
    chain.remove("iam-role")
    chain.insert_before("env", MountedSecretProvider(directory))


class MountedSecretProvider(CredentialProvider):
    """A credential provider of botocore; provides None when no Secret is mounted."""

    METHOD = "mounted-secret"
    CANONICAL_NAME = METHOD

    def __init__(self, directory: Path) -> None:
        super().__init__()
        self._directory = directory

    def load(self) -> Credentials | None:
        return MountedCredentials(self._directory) if self._directory.is_dir() else None


class MountedCredentials(Credentials):
    """Credentials that read the files for each request."""

    def __init__(self, directory: Path) -> None:
        super().__init__("", "", method=MountedSecretProvider.METHOD)
        self._directory = directory

    def get_frozen_credentials(self) -> ReadOnlyCredentials:
        """What botocore signs a request with. Raises PartialCredentialsError as `read_credentials` does."""
        return read_credentials(self._directory)


def read_credentials(directory: Path) -> ReadOnlyCredentials:
    """The keys in the files of one mounted Secret. Raises PartialCredentialsError when one is missing or empty."""
    link = directory / ATOMIC_LINK
    folder = link.resolve() if link.is_symlink() else directory
    return ReadOnlyCredentials(
        _required(folder / ACCESS_KEY_FILE), _required(folder / SECRET_KEY_FILE), _read(folder / SESSION_TOKEN_FILE)
    )


def hide_credentials(text: str, credentials: Any) -> str:
    """`text` without the keys, for a storage or a proxy may repeat them in what it answers.

    `credentials`: botocore's, or None.
    """
    try:
        keys = () if credentials is None else credentials.get_frozen_credentials()
    except BotoCoreError:  # there are none to hide
        return text
    for key in keys[:3]:
        if key:
            text = text.replace(key, HIDDEN)
    return text


def _required(file: Path) -> str:
    found = _read(file)
    if not found:
        raise PartialCredentialsError(provider=MountedSecretProvider.METHOD, cred_var=file.name)
    return found


def _read(file: Path) -> str | None:
    """A file's text without the line break that an editor or `echo` left; None when it is not there."""
    try:
        return file.read_text().strip() or None
    except FileNotFoundError:
        return None
