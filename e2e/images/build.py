"""The images: built here, pushed to the cluster's registry, and named by digest, so that Pods run what was built.

Built with Docker where an engine answers, else with buildah. Layers are kept between builds: a change of our code
builds and pushes the last layer only. The environment may say otherwise than the defaults:

    ACCELERATOR=cuda   the trainer for GPUs; the default, cpu, is a third of its size and runs everywhere
    BASE_IMAGE         what the images are built on, instead of `e2e.images.base_image`'s choice
    TORCH_INDEX        the package index to take torch from; UV_DEFAULT_INDEX the one for everything else

`python -m e2e.images.build` builds and pushes for the current cluster.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from os import environ
from pathlib import Path

from e2e.cache import cache_dir
from e2e.cluster import resolve
from e2e.cluster.locks import exclusive
from e2e.cluster.places import cluster_home
from e2e.cluster.resolve import Cluster, Flavour
from e2e.images.base_image import CUDA_PACKAGES, PACKAGES, base_image
from e2e.images.engines import Recipe, engine
from e2e.steps import StepFailed, console, failing_plainly, step

ROOT = Path(__file__).parents[2]
ACCELERATORS = ("cpu", "cuda")
LOCK_SECONDS = 7200.0

OPERATOR = "finetune-operator"
TRAINER = "finetune-trainer"
STORAGE = "seaweedfs"


@dataclass(frozen=True)
class Images:
    """References with digests, which the cluster's nodes can pull."""

    operator: str
    trainer: str
    storage: str


def build_and_push(cluster: Cluster) -> Images:
    """Build what has changed, push what the registry lacks. Raises StepFailed."""
    build()
    return push(cluster)


def build() -> None:
    """Build the three images, of which what has not changed is there already. Needs no cluster. Raises StepFailed."""
    with exclusive(cache_dir() / "images.lock", timeout=LOCK_SECONDS):
        builder = engine()
        wanted = environ.get("BASE_IMAGE", "")
        base = base_image(builder, wanted)
        on_gpus = environ.get("ACCELERATOR") == "cuda"
        trainer_base = base_image(builder, wanted, (*PACKAGES, *CUDA_PACKAGES)) if on_gpus else base
        made = recipes(environ, base, trainer_base)
        for recipe in made:
            with step(f"Build the image {recipe.name}", remedy="the log names the line of the Dockerfile") as building:
                builder.build(building, recipe)
        builder.forget_all_but([base, trainer_base, *(recipe.name for recipe in made)])


def push(cluster: Cluster) -> Images:
    """Push what `build` built; only layers that the registry lacks travel. Raises StepFailed."""
    pusher = engine()
    with (
        exclusive(cache_dir() / "images.lock", timeout=LOCK_SECONDS),
        step("Push the images", remedy=f"is {cluster.registry} a registry that you may push to?") as pushing,
    ):
        references = {
            name: f"{cluster.registry}/{name}@{pusher.push(pushing, name, f'{cluster.registry}/{name}:latest')}"
            for name in (OPERATOR, TRAINER, STORAGE)
        }
        if cluster.flavour is Flavour.OWN:
            # What older builds pushed; the lock keeps this apart from any push.
            config = cluster_home() / "registry.yaml"
            pushing.run(["docker-registry", "garbage-collect", "--delete-untagged", config], timeout=60)
    return Images(references[OPERATOR], references[TRAINER], references[STORAGE])


def recipes(environment: Mapping[str, str], base: str, trainer_base: str = "") -> list[Recipe]:
    """What the three images are built from; the small ones first. Raises StepFailed for a wrong setting.

    `trainer_base`: where the trainer's is another.
    """
    accelerator = environment.get("ACCELERATOR") or ACCELERATORS[0]
    if accelerator not in ACCELERATORS:
        raise StepFailed(f"ACCELERATOR is {accelerator!r}. What to do: set it to one of {', '.join(ACCELERATORS)}.")
    index = environment.get("UV_DEFAULT_INDEX", "")
    torch_index = environment.get("TORCH_INDEX", "")
    for name, address in (("UV_DEFAULT_INDEX", index), ("TORCH_INDEX", torch_index)):
        if "@" in address:
            raise StepFailed(
                f"{name} holds credentials, which would be kept in the history of the images. "
                "What to do: use an index that needs none, or a proxy that adds them."
            )
    shared = {"BASE_IMAGE": base, **({"PYPI_INDEX": index} if index else {})}
    trainer = {
        **shared,
        "BASE_IMAGE": trainer_base or base,
        "ACCELERATOR": accelerator,
        **({"TORCH_INDEX": torch_index} if torch_index else {}),
    }
    return [
        Recipe(STORAGE, ROOT / "e2e" / "seaweedfs" / "Dockerfile", ROOT, shared),
        Recipe(OPERATOR, ROOT / "Dockerfile", ROOT, shared),
        Recipe(TRAINER, ROOT / "trainer-image" / "Dockerfile", ROOT, trainer),
    ]


def main() -> None:
    with failing_plainly():
        images = build_and_push(resolve.current())
        console.print(f"operator  {images.operator}\ntrainer   {images.trainer}\nstorage   {images.storage}")


if __name__ == "__main__":
    main()
