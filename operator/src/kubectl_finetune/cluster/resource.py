"""The objects that commands are about: NAME is a FineTuneJob, and KIND/NAME one of another kind."""

from __future__ import annotations

import re

from finetune_view.resource import FINE_TUNE_JOB, KINDS, Kind, Resource
from kubectl_finetune.errors import ExitCode, PluginError

_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?")


def resource(argument: str, kinds: tuple[Kind, ...] = KINDS) -> Resource:
    """`NAME`, `ftj/NAME`, `eval/NAME`, ... Raises PluginError for another kind or a name that can't be."""
    kind_name, slash, name = argument.rpartition("/")
    if not slash:
        kind = FINE_TUNE_JOB
    else:
        found = [kind for kind in kinds if kind_name.lower() in _names(kind)]
        if not found:
            known = ", ".join(f"{kind.short_name}/NAME ({kind.name})" for kind in kinds)
            raise PluginError(f"{argument!r}: this command knows {known}.", ExitCode.WRONG_USAGE)
        kind = found[0]
    if not _NAME.fullmatch(name) or len(name) > 253:
        raise PluginError(f"{name!r} can't be the name of a {kind.name}.", ExitCode.WRONG_USAGE)
    return Resource(kind, name)


def _names(kind: Kind) -> tuple[str, ...]:
    return kind.short_name, kind.plural, kind.name.lower(), f"{kind.plural}.finetune.dev"
