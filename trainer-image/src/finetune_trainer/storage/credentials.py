"""The storage's credentials: files of a mounted Secret, read again for every request.

The kubelet replaces all files of a rotated Secret atomically, by pointing the link `..data` to a new folder. So the
keys of one request are all from one folder, and the next request after a rotation is signed with the new keys.
https://kubernetes.io/docs/concepts/storage/volumes/#secret
"""

from __future__ import annotations

import re
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
LEAST_UNMISTAKABLE = 16
"""A secret of this length is no common word (AWS's have 40), so it is hidden wherever it occurs, also within words."""


def give_credentials(session: Session, directory: Path) -> None:
    """Let the session use the credentials in `directory` if it exists, otherwise AWS's chain (AWS_*, a pod identity).

    The node's IAM role is removed from the chain: it does not belong to the tenant.
    """
    chain = session.get_component("credential_provider")
    chain.remove("iam-role")
    chain.insert_before("env", MountedSecretProvider(directory))


class MountedSecretProvider(CredentialProvider):
    """A credential provider for botocore; provides None if no Secret is mounted."""

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
        """The keys to sign a request with. Raises PartialCredentialsError as `read_credentials` does."""
        return read_credentials(self._directory)


def read_credentials(directory: Path) -> ReadOnlyCredentials:
    """The keys in the files of a mounted Secret. Raises PartialCredentialsError if one is missing or empty."""
    link = directory / ATOMIC_LINK
    folder = link.resolve() if link.is_symlink() else directory
    return ReadOnlyCredentials(
        _required(folder / ACCESS_KEY_FILE), _required(folder / SECRET_KEY_FILE), _read(folder / SESSION_TOKEN_FILE)
    )


def hide_credentials(text: str, credentials: Any) -> str:
    """`text` without the secret key and the token, which a storage or proxy may repeat in its response.

    The access key id stays: it is a name, by which a storage's administrator finds the account. `credentials`:
    botocore's, or None.
    """
    try:
        keys = () if credentials is None else credentials.get_frozen_credentials()
    except BotoCoreError:  # There are no keys to hide.
        return text
    for key in keys[1:3]:
        if key:
            text = hide(text, key)
    return text


def hide(text: str, secret: str) -> str:
    """`text` without a secret. A short one, which may be a common word, is hidden only where it stands alone.

    What a server repeats of a header or a form stands alone: between spaces, quotes, `=`, `:` or tags. In `keys`, a
    host's or a bucket's name, `key` is not the secret.
    """
    if len(secret) >= LEAST_UNMISTAKABLE:
        return text.replace(secret, HIDDEN)
    alone = rf"(?<!\w)(?<!\w[-./]){re.escape(secret)}(?!\w)(?![-./]\w)"
    return re.sub(alone, HIDDEN, text)


def _required(file: Path) -> str:
    found = _read(file)
    if not found:
        raise PartialCredentialsError(provider=MountedSecretProvider.METHOD, cred_var=file.name)
    return found


def _read(file: Path) -> str | None:
    """A file's text without surrounding whitespace (editors and `echo` add a line break); None if it does not exist."""
    try:
        return file.read_text().strip() or None
    except FileNotFoundError:
        return None
