"""Reads a run's files from the storage, as whoever runs the notebook: with their credentials, or with those of the
Secret in the namespace that the run's Pods use, where they may read it. The operator hands out none."""

from __future__ import annotations

import base64
import binascii
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from finetune_client.errors import StorageError
from finetune_view.fields import Fields, Object

MOST_BYTES = 64 * 2**20
CONNECT_SECONDS, READ_SECONDS, TRIES = 10, 60, 3
_KEYS = {
    "AWS_ACCESS_KEY_ID": "aws_access_key_id",
    "AWS_SECRET_ACCESS_KEY": "aws_secret_access_key",
    "AWS_SESSION_TOKEN": "aws_session_token",
}


@dataclass(frozen=True)
class StorageOptions:
    """How the files of runs are read.

    `credentials`: Environment takes what boto3 finds (variables, a profile, a role); Secret reads the Secret of the
    namespace that the run's Pods use. `endpoint`: the storage's URL, if this machine reaches it by another one than
    the cluster does.
    """

    credentials: Literal["Environment", "Secret"] = "Environment"
    endpoint: str | None = None


@dataclass(frozen=True)
class Place:
    """Where a run's files are. "" for what is not known."""

    endpoint: str = ""
    region: str = ""
    path_style: bool = False
    ca_bundle: str = ""
    secret_name: str = ""


def place_of(status: Fields, storage: Fields, options: StorageOptions) -> Place:
    """From the status of a run, and spec.storage of its class as far as it may be read."""
    access = status.at("storageAccess")
    return Place(
        endpoint=options.endpoint or status.text("storageEndpoint") or storage.text("endpoint"),
        region=access.text("region") or storage.text("region") or "us-east-1",
        path_style=(access.at("pathStyle").value or storage.at("pathStyle").value) is True,
        ca_bundle=storage.block("caBundle"),
        secret_name=access.text("credentialsSecretName") or storage.text("credentialsSecretName"),
    )


def credentials_in(secret: Object, name: str) -> dict[str, str]:
    """The keys of a Secret, as boto3 takes them. Raises StorageError."""
    data = Fields(secret).at("data")
    found = {}
    for key, argument in _KEYS.items():
        encoded = data.at(key).value
        if isinstance(encoded, str):
            try:
                found[argument] = base64.b64decode(encoded, validate=True).decode().strip()
            except (binascii.Error, UnicodeDecodeError):
                raise StorageError(f"The Secret {name} has no readable {key}.") from None
    if missing := [key for key in list(_KEYS)[:2] if _KEYS[key] not in found]:
        raise StorageError(f"The Secret {name} has no {' and no '.join(missing)}.")
    return found


def read_file(uri: str, place: Place, credentials: Mapping[str, str]) -> bytes:
    """The content of `s3://bucket/key`. Raises StorageError, which says what to do."""
    scheme, _, path = uri.partition("://")
    bucket, _, key = path.partition("/")
    if scheme != "s3" or not bucket or not key:
        raise StorageError(f"{uri!r} is not the s3://bucket/key of a file.")
    try:
        import boto3
        from botocore.exceptions import BotoCoreError, ClientError
    except ImportError:
        raise StorageError(
            "boto3 is not installed: `pip install 'finetune-operator[client]'`, or download the file yourself: "
            f"{_by_hand(uri, place)}"
        ) from None
    session = boto3.Session(**credentials)
    if session.get_credentials() is None:
        other = f" (the Secret {place.secret_name})" if place.secret_name else ""
        raise StorageError(
            f"There are no credentials to read {uri} with. Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY or "
            f"AWS_PROFILE; or, if you may read Secrets of the namespace, let the client use those of the Pods{other}: "
            'FineTuneClient(storage=StorageOptions(credentials="Secret")).'
        )
    with ExitStack() as files:
        try:
            answer = _client(session, place, files).get_object(Bucket=bucket, Key=key)
            content: bytes = answer["Body"].read(MOST_BYTES + 1)
        except ClientError as error:
            raise StorageError(
                _refused(uri, str(error.response.get("Error", {}).get("Code", "")), str(error))
            ) from None
        except (BotoCoreError, OSError) as error:
            raise StorageError(
                f"{place.endpoint or 'The storage'} did not give {uri}: {error}. If that name is one of the cluster's, "
                "forward its port (kubectl port-forward) and pass StorageOptions(endpoint=...)."
            ) from None
    if len(content) > MOST_BYTES:
        raise StorageError(f"{uri} is larger than {MOST_BYTES} bytes. Download it: {_by_hand(uri, place)}")
    return content


def _client(session: Any, place: Place, files: ExitStack) -> Any:
    from botocore.config import Config

    verify = None
    if place.ca_bundle:
        bundle = Path(files.enter_context(tempfile.TemporaryDirectory())) / "ca.pem"
        bundle.write_text(place.ca_bundle)
        verify = str(bundle)
    config = Config(
        connect_timeout=CONNECT_SECONDS,
        read_timeout=READ_SECONDS,
        retries={"total_max_attempts": TRIES, "mode": "standard"},
        s3={"addressing_style": "path" if place.path_style else "auto"},
    )
    return session.client(
        "s3", endpoint_url=place.endpoint or None, region_name=place.region or None, config=config, verify=verify
    )


def _refused(uri: str, code: str, detail: str) -> str:
    if code in ("NoSuchKey", "404", "NoSuchBucket"):
        return f"{uri} does not exist (any more): {detail}"
    return f"The storage refused {uri}: {detail}. Do these credentials have s3:GetObject there?"


def _by_hand(uri: str, place: Place) -> str:
    return f"aws s3 cp {uri} .{f' --endpoint-url {place.endpoint}' if place.endpoint else ''}"
