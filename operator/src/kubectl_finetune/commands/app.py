"""The command line: what all commands have in common. Imports are lazy, so that --help answers at once."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from finetune_view.resource import Resource
from kubectl_finetune.cluster.kubectl import Kubectl
from kubectl_finetune.errors import ExitCode

if TYPE_CHECKING:
    from finetune_view.object_view import ObjectView

_EPILOG = "Exit codes: " + ", ".join(f"{code.value} {code.name.lower().replace('_', ' ')}" for code in ExitCode) + "."

app = typer.Typer(
    help="Follow, repair and compare fine-tuning runs of finetune-operator.",
    epilog=_EPILOG,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)

NameArgument = Annotated[
    str,
    typer.Argument(
        metavar="NAME",
        help="A FineTuneJob, or KIND/NAME: eval/NAME, mdep/NAME, fts/NAME, ftds/NAME.",
        show_default=False,
    ),
]
JobArgument = Annotated[str, typer.Argument(metavar="NAME", help="A FineTuneJob.", show_default=False)]
RunArgument = Annotated[
    str, typer.Argument(metavar="NAME", help="A FineTuneJob, or eval/NAME, fts/NAME, ftds/NAME.", show_default=False)
]

_CONNECTION = {
    "namespace": Annotated[str | None, typer.Option("--namespace", "-n", help="Namespace to use.", show_default=False)],
    "context": Annotated[str | None, typer.Option("--context", help="Context to use.", show_default=False)],
    "kubeconfig": Annotated[str | None, typer.Option("--kubeconfig", help="Kubeconfig to use.", show_default=False)],
    "as_user": Annotated[str | None, typer.Option("--as", help="User to impersonate.", show_default=False)],
    "as_group": Annotated[
        list[str] | None, typer.Option("--as-group", help="Group to impersonate, once for each.", show_default=False)
    ],
}
"""kubectl's own options that every command takes: kubectl passes a plugin nothing that stands before its name."""
CONNECTION_OPTIONS = frozenset({"--namespace", "--context", "--kubeconfig", "--as", "--as-group"})


def with_cluster(command: Callable[..., None]) -> Callable[..., None]:
    """A command whose first parameter is Kubectl, as one that takes kubectl's options instead."""
    own = list(inspect.signature(command, eval_str=True).parameters.values())[1:]
    options = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)
        for name, annotation in _CONNECTION.items()
    ]

    @functools.wraps(command)
    def run(**given: Any) -> None:
        chosen = {name.removesuffix("_user").replace("_", "-"): given.pop(name) for name in _CONNECTION}
        command(Kubectl.with_options(**chosen), **given)

    del run.__wrapped__
    parameters = [one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in [*own, *options]]
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {one.name: one.annotation for one in parameters}
    return run


def _show_version(asked: bool) -> None:
    if asked:
        from importlib.metadata import PackageNotFoundError, version

        try:
            typer.echo(f"kubectl-finetune {version('finetune-operator')}")
        except PackageNotFoundError:
            typer.echo("kubectl-finetune, of a source tree")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version, and end.", is_eager=True, callback=_show_version)
    ] = False,
) -> None:
    """Follow, repair and compare fine-tuning runs of finetune-operator."""


def read(kubectl: Kubectl, wanted: Resource) -> ObjectView:
    """The object, as it is now. Raises PluginError."""
    from kubectl_finetune.cluster.read import read_object

    return read_object(kubectl, wanted)
