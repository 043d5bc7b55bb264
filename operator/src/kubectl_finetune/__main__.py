"""`kubectl-finetune`, which kubectl runs as `kubectl finetune`."""

from __future__ import annotations

import io
import os
import signal
import sys
import types
from typing import TextIO

from kubectl_finetune.errors import ExitCode, PluginError


def main() -> None:
    """The console script. Whatever happens, a person gets a message and an exit code, and no traceback."""
    signal.signal(signal.SIGTERM, _end)
    _prepare(sys.stdout, sys.stderr)
    try:
        from kubectl_finetune.commands.cli import app

        app(prog_name="kubectl finetune")
    except PluginError as error:
        _exit(str(error), error.code)
    except KeyboardInterrupt:
        sys.exit(ExitCode.INTERRUPTED)
    except BrokenPipeError:
        # Whoever read the output has enough; nothing more is to be written when Python ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(ExitCode.FAILED)
    except Exception as error:
        if os.environ.get("KUBECTL_FINETUNE_DEBUG"):
            raise
        _exit(
            f"a bug of the plugin ({type(error).__name__}: {error}). Please report it, with the output of the same "
            "command after `export KUBECTL_FINETUNE_DEBUG=1`.",
            ExitCode.INTERNAL,
        )


def complete() -> None:
    """The console script kubectl_complete-finetune: it does what the script of completion.py does."""
    sys.argv[1:] = ["completion", "--for-kubectl", "--", *sys.argv[1:]]
    main()


def _exit(message: str, code: ExitCode) -> None:
    sys.stderr.write(f"error: {message}\n")
    sys.exit(code)


def _prepare(*streams: TextIO) -> None:
    """Text that the terminal's encoding lacks is replaced, and never an error."""
    for stream in streams:
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def _end(number: int, frame: types.FrameType | None) -> None:
    """SIGTERM as an exception, so that kubectl's processes are ended too."""
    sys.exit(128 + number)


if __name__ == "__main__":
    main()
