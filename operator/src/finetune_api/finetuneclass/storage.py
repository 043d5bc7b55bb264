"""The S3-compatible storage of a class."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from finetune_api.base import ApiModel, Line
from finetune_api.kubernetes_types import SubdomainName
from finetune_api.unions import OneOf, TypedUnion


class KMS(ApiModel):
    """Settings for a key management service."""

    key_id: Line | None = Field(None, description="ID of the KMS key. Omitted: the bucket's default key.")


class ServerSideEncryption(TypedUnion):
    """Server-side encryption for written objects (x-amz-server-side-encryption)."""

    type: Literal["S3", "KMS"] = Field(
        description="S3: keys managed by the storage (AES256). KMS: keys managed by a KMS (aws:kms)."
    )
    kms: KMS | None = None

    def request_parameters(self) -> dict[str, str]:
        """boto3's parameters of PutObject and CreateMultipartUpload."""
        if self.type == "S3":
            return {"ServerSideEncryption": "AES256"}
        key_id = None if self.kms is None else self.kms.key_id
        return {"ServerSideEncryption": "aws:kms", **({} if key_id is None else {"SSEKMSKeyId": key_id})}


class Storage(OneOf):
    """The S3-compatible storage for checkpoints and results.

    The operator never reads a credential: it only writes the Secret's name into Pods.
    """

    choices = ("credentials_secret_name", "service_account_name")

    endpoint: Annotated[str, StringConstraints(pattern=r"^https?://[^\s/?#@]+$", max_length=253)] | None = Field(
        None, description="URL of the S3 endpoint. Omitted: AWS."
    )
    region: Annotated[str, StringConstraints(max_length=64)] = Field(
        "us-east-1",
        description="Region used to sign requests. Most S3-compatible storage other than AWS accepts any value.",
    )
    bucket: Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$", max_length=63)] = Field(
        description="Bucket for checkpoints and results. It must exist."
    )
    prefix: Annotated[str, StringConstraints(pattern=r"^[^/\s][^\s]*[^/\s]$", max_length=512)] = Field(
        "finetune", description="Key prefix. Each run writes below <prefix>/<namespace>/<name>/<runId>-<digest>-<uid>/."
    )
    path_style: bool = Field(False, description="Use path-style instead of virtual-hosted-style addresses.")
    ca_bundle: Annotated[str, StringConstraints(pattern=r"^-----BEGIN CERTIFICATE-----", max_length=65536)] | None = (
        Field(None, description="PEM CA certificates used to verify the endpoint. Omitted: the public CAs.")
    )
    server_side_encryption: ServerSideEncryption | None = None
    outage_tolerance_seconds: int = Field(
        600,
        ge=0,
        le=86400,
        description="How long requests are retried while the storage is unreachable. A shorter "
        "outage only delays a run.",
    )
    credentials_secret_name: SubdomainName | None = Field(
        None,
        description="Name of a Secret in the JOB's namespace with AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY.",
    )
    service_account_name: SubdomainName | None = Field(
        None,
        description="Name of a service account in the JOB's namespace that provides a pod identity for the storage.",
    )
