"""The diagnosis of Hugging Face hub errors: unreachable, denied, gated or missing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from json import JSONDecodeError
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from finetune_api.conditions import Reason
from finetune_trainer.process.failures import DiagnosedError, first_line, sentence

_WHERE = "In a cluster, it is in the Secret that the FineTuneClass names (spec.hub.tokenSecretName), in this namespace."


@contextmanager
def hub_errors(uri: str, missing: Reason) -> Iterator[None]:
    """Raise what huggingface_hub raises as DiagnosedError. `missing`: the reason when the hub has no such thing."""
    from httpx2 import HTTPError

    try:
        yield
    except (HTTPError, OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        found = diagnose(error, uri, missing)
        if found is None:
            raise
        raise found from error


def diagnose(error: Exception, uri: str, missing: Reason) -> DiagnosedError | None:
    """The diagnosis of an error; None when it is not the hub's."""
    from httpx2 import HTTPError
    from huggingface_hub.errors import (
        DisabledRepoError,
        EntryNotFoundError,
        FileMetadataError,
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    message = sentence(first_line(error))
    if isinstance(error, OfflineModeIsEnabled):
        return DiagnosedError(Reason.HUB_UNREACHABLE, f"{uri} is on a hub, and HF_HUB_OFFLINE is set: {message}")
    if isinstance(error, GatedRepoError):
        return DiagnosedError(
            Reason.HUB_GATED,
            f"{uri} is gated: whoever owns the token (HF_TOKEN) must accept its terms on its page of the hub first. "
            f"{_WHERE} The hub said: {message}",
        )
    if isinstance(error, RevisionNotFoundError):
        return DiagnosedError(missing, f"{uri}: the hub has the repository, but not this revision. {message}")
    if isinstance(error, RepositoryNotFoundError):
        return DiagnosedError(
            missing,
            f"The hub shows no {uri}: there is none, or it is private and needs a token (HF_TOKEN) that may read it. "
            f"{_WHERE} {message}",
        )
    if isinstance(error, DisabledRepoError):
        return DiagnosedError(missing, f"{uri} has been disabled by the hub. {message}")
    if isinstance(error, HFValidationError):
        return DiagnosedError(missing, f"{uri} is not the name of a repository: {message}")
    if isinstance(error, HfHubHTTPError):
        return _answer(error, uri, missing, message)
    if isinstance(error, EntryNotFoundError) and not isinstance(error, LocalEntryNotFoundError):
        return DiagnosedError(missing, f"{uri}: {message}")
    if isinstance(error, JSONDecodeError | TypeError | KeyError | AttributeError):
        return DiagnosedError(
            Reason.HUB_UNREACHABLE,
            f"{_hub()} does not answer as a Hugging Face Hub ({type(error).__name__}: {message}) Check "
            "spec.hub.endpoint of the FineTuneClass (HF_ENDPOINT), and whether a proxy answers in its place.",
        )
    if isinstance(error, ValueError):
        return None
    if not isinstance(error, HTTPError | ConnectionError | TimeoutError | FileMetadataError | LocalEntryNotFoundError):
        return DiagnosedError(Reason.FAILED, f"{uri} could not be stored on the Pod's disk: {message}", retryable=True)
    return DiagnosedError(
        Reason.HUB_UNREACHABLE,
        f"{_hub()} could not be reached for {uri}{_by_proxy()}: {message} Pods need a way to it: a proxy (HTTPS_PROXY, "
        "in spec.env of the FineTuneClass), or a mirror (HF_ENDPOINT, its spec.hub.endpoint); or copy the "
        "files to the storage, and name them by s3://.",
        retryable=True,
    )


def _by_proxy() -> str:
    """Which proxy was asked, without a password."""
    proxy = getproxies().get(urlsplit(_hub()).scheme)
    if proxy is None or proxy_bypass(urlsplit(_hub()).hostname or ""):
        return ""
    return f" through the proxy {proxy.rpartition('@')[2]}"


def _answer(error: Exception, uri: str, missing: Reason, message: str) -> DiagnosedError:
    status = getattr(getattr(error, "response", None), "status_code", 0)
    if status == 429 or status >= 500:
        return DiagnosedError(
            Reason.HUB_UNREACHABLE, f"{_hub()} answered {status} for {uri}: {message}", retryable=True
        )
    if status in (401, 403):
        return DiagnosedError(
            Reason.HUB_DENIED,
            f"{_hub()} denies {uri} ({status}): {message} Set a token (HF_TOKEN) that is valid and may read it. "
            f"{_WHERE}",
        )
    return DiagnosedError(missing, f"{_hub()} answered {status} for {uri}: {message}")


def _hub() -> str:
    from huggingface_hub import constants

    return str(constants.ENDPOINT)
