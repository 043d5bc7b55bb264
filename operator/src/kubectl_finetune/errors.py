"""The exit codes, and the errors that end a command with one of them and one message."""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """How a command ended; EXIT_MEANINGS tells users."""

    SUCCEEDED = 0
    FAILED = 1
    WRONG_USAGE = 2
    TIMED_OUT = 3
    STALLED = 4
    NOT_FOUND = 5
    NO_ACCESS = 6
    INTERNAL = 70
    INTERRUPTED = 130


EXIT_MEANINGS: dict[ExitCode, str] = {
    ExitCode.SUCCEEDED: "The command did what it was asked for. `watch`: the run succeeded (an Evaluation passed, a "
    "ModelDeployment serves the model that it asks for: a canary was promoted).",
    ExitCode.FAILED: "`watch`: the run failed or was cancelled, an Evaluation did not pass, or a canary was rolled "
    "back. `validate`: the file has errors. Otherwise kubectl or the API server refused.",
    ExitCode.WRONG_USAGE: "An argument or option is wrong, or a question has to be answered and there is no terminal.",
    ExitCode.TIMED_OUT: "`watch --timeout`: the time was over before the run was.",
    ExitCode.STALLED: "`watch --until-stalled`: the run waits for someone to fix something.",
    ExitCode.NOT_FOUND: "The object, its Pods or the kind do not exist, or the object was deleted meanwhile.",
    ExitCode.NO_ACCESS: "The cluster can't be reached, does not allow the request, or there is no kubectl.",
    ExitCode.INTERNAL: "A bug of the plugin. `KUBECTL_FINETUNE_DEBUG=1` shows the traceback to report.",
    ExitCode.INTERRUPTED: "Ctrl-C.",
}


class PluginError(Exception):
    """Ends the command with this message. The message says what happened, and what to do."""

    def __init__(self, message: str, code: ExitCode = ExitCode.FAILED) -> None:
        super().__init__(message)
        self.code = code


class NotFoundError(PluginError):
    """What was asked for is not there."""

    def __init__(self, message: str) -> None:
        super().__init__(message, ExitCode.NOT_FOUND)


class NoAccessError(PluginError):
    """No cluster, no rights, or no kubectl."""

    def __init__(self, message: str) -> None:
        super().__init__(message, ExitCode.NO_ACCESS)


class ForbiddenError(NoAccessError):
    """The cluster does not allow this user the request."""
