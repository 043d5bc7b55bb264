"""`python -m e2e.cluster`: the local cluster from the command line."""

from __future__ import annotations

import signal

import typer

from e2e.cluster import resolve
from e2e.cluster.binaries import binaries
from e2e.cluster.components.control_plane import control_plane
from e2e.cluster.machine.commands import ask
from e2e.cluster.resolve import Cluster
from e2e.steps import StepFailed, console, failing_plainly

app = typer.Typer(help=__doc__, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


@app.command()
def up() -> None:
    """Bring the cluster up; does nothing where it is up."""
    with failing_plainly():
        _tell(resolve.up())


@app.command()
def down() -> None:
    """Remove the local cluster; images and binaries stay in the cache."""
    with failing_plainly():
        resolve.down()


@app.command()
def kubeconfig() -> None:
    """Print the path of the cluster's kubeconfig."""
    with failing_plainly():
        typer.echo(resolve.current().kubeconfig)


@app.command()
def status() -> None:
    """Say which cluster it is and whether it is healthy; ends with status 1 when it is not."""
    with failing_plainly():
        cluster = resolve.current()
        kubectl = binaries(["kubectl"])["kubectl"]
        nodes = ask(kubectl, "--kubeconfig", cluster.kubeconfig, "get", "nodes", "-o", "wide", timeout=10)
        if nodes is None:
            raise StepFailed(f"The {cluster.flavour.value} cluster is not up. What to do: `make cluster`.")
        _tell(cluster)
        typer.echo(nodes)


@app.command("control-plane")
def run_control_plane() -> None:
    """Run a control plane without nodes, for development, until Ctrl-C."""
    with failing_plainly(), control_plane() as plane:
        console.print(f"export KUBECONFIG={plane.kubeconfig}")
        console.print("Ctrl-C ends it.")
        signal.sigwait({signal.SIGINT, signal.SIGTERM})


def _tell(cluster: Cluster) -> None:
    console.print(f"The {cluster.flavour.value} cluster is up; it pulls images from {cluster.registry}.")
    console.print(f"export KUBECONFIG={cluster.kubeconfig} PATH={binaries(['kubectl'])['kubectl'].parent}:$PATH")


if __name__ == "__main__":
    app()
