"""Where the storage of a command on a laptop is."""

from __future__ import annotations

from collections.abc import Mapping

from finetune_api.pod_contracts.run import StorageConfig


def storage_config(variables: Mapping[str, str]) -> StorageConfig:
    """Local folders, and the S3 that the AWS_* variables name."""
    endpoint = variables.get("AWS_ENDPOINT_URL_S3") or variables.get("AWS_ENDPOINT_URL")
    return StorageConfig(
        endpoint=endpoint,
        region=variables.get("AWS_REGION") or variables.get("AWS_DEFAULT_REGION") or "us-east-1",
        path_style=endpoint is not None,
        local_folders=True,
    )
