"""The exception that carries a diagnosis: raised where a failure is understood, written out at the edge."""

from __future__ import annotations

from finetune_api.conditions import Reason
from finetune_api.finetunejob import DatasetFindings
from finetune_api.pod_contracts.outcome import Failure

MESSAGE_LENGTH = 4096


class DiagnosedError(Exception):
    """A failure whose reason is known. `failure` is what the operator and a person get to read."""

    def __init__(
        self,
        reason: Reason,
        message: str,
        *,
        retryable: bool = False,
        suggestion: str | None = None,
        dataset: DatasetFindings | None = None,
    ) -> None:
        super().__init__(message)
        self.failure = Failure(
            reason=reason,
            message=message[:MESSAGE_LENGTH],
            retryable=retryable,
            suggestion=suggestion,
            dataset=dataset,
        )

    @classmethod
    def of(cls, failure: Failure) -> DiagnosedError:
        """The exception for a failure that was diagnosed elsewhere (in another process of the gang)."""
        error = cls(failure.reason, failure.message)
        error.failure = failure
        return error


def first_line(error: BaseException) -> str:
    """The first line of an error's message, at most 1000 characters."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:1000]


def sentence(message: str) -> str:
    """The message with a full stop, so that another sentence can follow."""
    return message if message.endswith((".", "!", "?")) else f"{message}."


class DisruptedError(Exception):
    """The process stopped after a SIGTERM: nothing is wrong with the run."""
