"""The S3 client of a storage: its endpoint, addressing, region, trust, timeouts and credentials.

It sends each request once: retries.py decides about retries.
"""

from __future__ import annotations

import functools
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from botocore.config import Config
from botocore.loaders import Loader, create_loader
from botocore.session import Session

from finetune_api.pod_contracts.run import StorageConfig
from finetune_trainer.storage.credentials import give_credentials, hide_credentials
from finetune_trainer.storage.errors import NO_CREDENTIALS, no_credentials

CONNECT_TIMEOUT_SECONDS = 5
READ_TIMEOUT_SECONDS = 30
"""The longest silence within a response, after which a hung connection is closed."""


@dataclass(frozen=True)
class S3Client:
    """Botocore's client, with what is needed to remove its credentials from messages."""

    api: Any
    credentials: Any
    where: str
    secret_name: str | None
    """Of the Secret with the credentials, for messages."""
    encryption: dict[str, str]
    """Parameters of PutObject and CreateMultipartUpload."""
    ca_file: Any
    """The temporary file with the CA bundle; it is deleted when closed."""

    def hide_credentials(self, text: str) -> str:
        """`text` with the signing keys removed."""
        return hide_credentials(text, self.credentials)


def open_client(config: StorageConfig, credentials: Path, connections: int) -> S3Client:
    """A client of the storage for up to `connections` concurrent requests. It does not connect yet.

    Raises DiagnosedError (StorageDenied) if a pod identity gives no credentials.
    """
    session = Session()
    session.register_component("data_loader", _descriptions())
    give_credentials(session, credentials)
    where = config.endpoint or f"AWS S3 in {config.region}"
    try:
        signing = session.get_credentials()
    except NO_CREDENTIALS as error:
        raise no_credentials(error, where) from error
    ca_file = _ca_file(config.ca_bundle)
    api = session.create_client(
        "s3",
        endpoint_url=config.endpoint,
        region_name=config.region,
        verify=None if ca_file is None else ca_file.name,
        config=Config(
            connect_timeout=CONNECT_TIMEOUT_SECONDS,
            read_timeout=READ_TIMEOUT_SECONDS,
            retries={"mode": "standard", "total_max_attempts": 1},
            max_pool_connections=connections,
            tcp_keepalive=True,
            # Explicit, because botocore's "auto" means path style for all endpoints but AWS's. IP addresses need it.
            s3={"addressing_style": "path" if config.path_style else "virtual"},
            # Many S3-compatible servers lack the newer trailing checksums. Bodies are signed with their SHA-256 anyway.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        ),
    )
    encryption = config.server_side_encryption
    parameters = {} if encryption is None else encryption.request_parameters()
    return S3Client(api, signing, where, config.credentials_secret_name, parameters, ca_file)


@functools.cache
def _descriptions() -> Loader:
    """Botocore's descriptions of S3 and its endpoints: megabytes of JSON, parsed once per process."""
    return create_loader()


def _ca_file(ca_bundle: str | None) -> Any:
    """A temporary file with the CA bundle, deleted when closed; None to trust the public CAs."""
    if ca_bundle is None:
        return None
    file = tempfile.NamedTemporaryFile("w", prefix="storage-ca-", suffix=".pem")  # noqa: SIM115 (the client keeps it open)
    file.write(ca_bundle)
    file.flush()
    return file
