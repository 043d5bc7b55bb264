"""`make demo`: fine-tunes, evaluates and serves a model on a real Kubernetes, and shows what came of it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from e2e.cache import cache_dir
from e2e.cluster.binaries import binaries
from e2e.cluster.locks import exclusive
from e2e.demo.scenario import NAME, NAMESPACE, Platform, Tuned, apply, ask, follow, held_out_example, prepare
from e2e.steps import StepFailed, console, failing_plainly, step, timings_table

DEMO_SECONDS = 14400.0
"""Of another demo at most; its first one builds everything."""

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def demo(
    model: Annotated[str | None, typer.Option(help="Another base model, as hf://org/name@revision.")] = None,
) -> None:
    """Run the quickstart."""
    what = "Wait for another demo in the same cluster"
    with failing_plainly(), exclusive(cache_dir() / "demo.lock", timeout=DEMO_SECONDS, what=what):
        platform = prepare()
        try:
            run(platform, model)
        except StepFailed as failed:
            raise StepFailed(f"{failed}\n\n{what_stays(platform.cluster.kubeconfig, kubectl())}") from None


def run(platform: Platform, model: str | None) -> None:
    """Apply the quickstart, follow it, ask the deployed model, and show it all."""
    watch = ["To watch in another shell:", *how_to_look(platform.cluster.kubeconfig, kubectl())]
    console.print("\n".join(watch), markup=False)
    apply(platform, model)
    tuned = follow(platform)
    console.print(score_table(tuned))
    messages, reference = held_out_example()
    with step("Ask the deployed model through the OpenAI API"):
        answer = ask(platform, tuned.deployment, messages)
    console.print()
    console.print(f"Asked:     {messages[-1]['content']}", markup=False)
    console.print(f"Answered:  {answer}", markup=False)
    console.print(f"Reference: {reference}", markup=False)
    console.print()
    console.print(platform.api.kubectl("get", "ftj,eval,mdep", "-A"), markup=False)
    console.print(timings_table())
    where_to_look(platform, tuned)


def kubectl() -> Path:
    """The cluster's own kubectl."""
    return binaries(["kubectl"])["kubectl"]


def score_table(tuned: Tuned) -> Table:
    """Base against tuned, exactly as the Evaluation's status has it."""
    table = Table("grader", "model", "score", "95 % interval", "examples", "gain over base", title="Held-out examples")
    results = tuned.evaluation["status"]["results"]
    for score in sorted(results, key=lambda score: score["grader"]):
        gain = ""
        if "delta" in score:
            gain = f"{score['delta']:+.3f} [{score['deltaLow']:+.3f}, {score['deltaHigh']:+.3f}]"
        table.add_row(
            score["grader"],
            score["candidate"],
            f"{score['score']:.3f}",
            f"[{score['low']:.3f}, {score['high']:.3f}]".replace("[", "\\["),
            str(score["examples"]),
            gain.replace("[", "\\["),
        )
    return table


def how_to_look(kubeconfig: Path, kubectl: Path) -> list[str]:
    """The commands that show the demo's objects, in a shell of one's own."""
    return [
        f"  export KUBECONFIG={kubeconfig} PATH={kubectl.parent}:$PATH",
        f"  kubectl -n {NAMESPACE} get ftj,eval,mdep,pods",
        f"  kubectl -n {NAMESPACE} describe ftj {NAME}",
    ]


def what_stays(kubeconfig: Path, kubectl: Path) -> str:
    """What a demo that failed leaves, and how to look at it."""
    lines = [
        "The cluster stays up, and the objects that were applied to it continue without this command:",
        *how_to_look(kubeconfig, kubectl),
        "  make demo          starts the demo again in the same cluster",
        "  make cluster-down  removes the cluster",
    ]
    return "\n".join(lines)


def where_to_look(platform: Platform, tuned: Tuned) -> None:
    """What a person types next."""
    job, evaluation, deployment = (item["status"] for item in (tuned.job, tuned.evaluation, tuned.deployment))
    lines = [
        "Next steps:",
        *how_to_look(platform.cluster.kubeconfig, kubectl()),
        f"  the tuned model    {job['result']['uri']}",
        f"  checkpoints, log   {job['storageUri']}/",
        f"  scores, samples    {evaluation['reportUri']}",
        f"  OpenAI API         {deployment['url']}  (model {deployment['modelName']!r})",
        "  make cluster-down  removes the cluster",
    ]
    console.print("\n".join(lines), markup=False)


if __name__ == "__main__":
    app()
