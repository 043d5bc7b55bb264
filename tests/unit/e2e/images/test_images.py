"""What images are built from, and which of them are thrown away."""

from __future__ import annotations

import datetime
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from e2e.images.base_image import CUDA_PACKAGES, OFFICIAL, PACKAGES, apt_sources, local_name, own_mounts
from e2e.images.build import OPERATOR, ROOT, STORAGE, TRAINER, recipes
from e2e.images.engines import Recipe, is_local, layers_of, unused_images
from e2e.s3 import MANIFEST, manifests
from e2e.steps import StepFailed
from finetune_trainer.process.gpu_requirements import GKE_DRIVER


def arguments(environment: Mapping[str, str], image: str) -> Mapping[str, str]:
    return next(recipe.arguments for recipe in recipes(environment, "base:1") if recipe.name == image)


@pytest.mark.parametrize(
    ("environment", "image", "expected"),
    [
        ({}, OPERATOR, {"BASE_IMAGE": "base:1"}),
        ({}, STORAGE, {"BASE_IMAGE": "base:1"}),
        ({}, TRAINER, {"BASE_IMAGE": "base:1", "ACCELERATOR": "cpu"}),
        ({"ACCELERATOR": "cuda"}, TRAINER, {"BASE_IMAGE": "base:1", "ACCELERATOR": "cuda"}),
        ({"ACCELERATOR": "cuda"}, OPERATOR, {"BASE_IMAGE": "base:1"}),
        (
            {"TORCH_INDEX": "https://torch.test/cpu"},
            TRAINER,
            {"BASE_IMAGE": "base:1", "ACCELERATOR": "cpu", "TORCH_INDEX": "https://torch.test/cpu"},
        ),
        (
            {"UV_DEFAULT_INDEX": "https://mirror.test/simple"},
            OPERATOR,
            {"BASE_IMAGE": "base:1", "PYPI_INDEX": "https://mirror.test/simple"},
        ),
    ],
)
def test_build_arguments_come_from_the_environment_and_fit_the_image(
    environment: Mapping[str, str], image: str, expected: Mapping[str, str]
) -> None:
    assert arguments(environment, image) == expected


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"ACCELERATOR": "tpu"}, "ACCELERATOR is 'tpu'.*cpu, cuda"),
        ({"UV_DEFAULT_INDEX": "https://me:secret@mirror.test"}, "UV_DEFAULT_INDEX holds credentials"),
        ({"TORCH_INDEX": "https://me:secret@mirror.test"}, "TORCH_INDEX holds credentials"),
    ],
)
def test_a_setting_that_can_not_be(environment: Mapping[str, str], message: str) -> None:
    with pytest.raises(StepFailed, match=message) as failed:
        recipes(environment, "base:1")
    assert "secret" not in str(failed.value)


def test_the_machine_s_ca_bundle_is_lent_where_there_is_one(tmp_path: Path) -> None:
    bundle = tmp_path / "ca.pem"
    recipe = Recipe("x", Path("Dockerfile"), Path(), {"A": "1"})
    plain = ["--file", "Dockerfile", "--build-arg", "A=1"]
    assert recipe.options({}) == plain
    assert recipe.options({"SSL_CERT_FILE": str(bundle)}) == plain
    bundle.touch()
    assert recipe.options({"SSL_CERT_FILE": str(bundle)}) == [*plain, "--secret", f"id=ca,src={bundle}"]


@pytest.mark.parametrize("recipe", recipes({}, "base:1"), ids=lambda recipe: recipe.name)
def test_dockerfiles_know_their_arguments_and_the_default_base(recipe: Recipe) -> None:
    text = recipe.dockerfile.read_text()
    assert f"\nARG BASE_IMAGE={OFFICIAL}\n" in text
    assert set(recipe.arguments) <= set(re.findall(r"^ARG (\w+)=", text, re.MULTILINE))


def test_the_images_share_the_stage_that_builds() -> None:
    stages = {
        text[text.index("FROM ${BASE_IMAGE} AS tools") : text.index("-r /locks/build.txt")]
        for text in (recipe.dockerfile.read_text() for recipe in recipes({}, "base:1"))
    }
    assert len(stages) == 1


def test_what_is_copied_is_not_ignored() -> None:
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    for recipe in recipes({}, "base:1"):
        for line in re.findall(r"^COPY (?!--from)(.*) \S+$", recipe.dockerfile.read_text(), re.MULTILINE):
            for source in line.split():
                assert any(Path(source.rstrip("*")).is_relative_to(one) for one in allowed), source


def test_storage_runs_the_image_that_was_pushed() -> None:
    documents = manifests(MANIFEST.read_text(), "registry.test/weed@sha256:1")
    assert [document["kind"] for document in documents] == ["Service", "Deployment"]
    containers = documents[1]["spec"]["template"]["spec"]["containers"]
    assert [container["image"] for container in containers] == ["registry.test/weed@sha256:1"]


@pytest.mark.parametrize(
    ("target", "local"),
    [
        ("localhost:5001/x:latest", True),
        ("127.0.0.1/x:latest", True),
        ("registry.test/localhost/x:latest", False),
        ("localhost.test/x:latest", False),
    ],
)
def test_a_registry_on_this_machine_is_local(target: str, local: bool) -> None:
    assert is_local(target) is local


BUILD_LOG = """\
[1/2] STEP 1/2: FROM localhost/base:t AS tools
--> b73756b16e5
[1/2] STEP 2/2: RUN set -eu
 + yarl==1.25.1
--> Using cache 973b5a3163cec1d900b464e6fbce101a64199da92e51ff4f16f31a4ccd033efe
--> 973b5a3163c
Successfully tagged localhost/x:latest
973b5a3163cec1d900b464e6fbce101a64199da92e51ff4f16f31a4ccd033efe
"""


def test_the_layers_of_a_build_are_read_from_its_log() -> None:
    assert layers_of(BUILD_LOG) == {"b73756b16e5", "973b5a3163c"}


def test_only_what_no_image_of_now_is_made_of_is_unused() -> None:
    listing = "\n".join(
        [
            "sha256:aaaaaaaaaaaa1 localhost/finetune-operator:latest",
            "sha256:bbbbbbbbbbbb2 <none>:<none>",
            "sha256:cccccccccccc3 <none>:<none>",
            "sha256:dddddddddddd4 localhost/finetune-base-1-2026-10:latest",
            "sha256:eeeeeeeeeeee5 docker.io/library/python:3.11-slim-bookworm",
        ]
    )
    names = ["python:3.11-slim-bookworm", "finetune-operator"]
    assert unused_images(listing, names, {"bbbbbbbbbbb"}) == ["cccccccccccc3", "dddddddddddd4"]


APT_TARGETS = """\
http://mirror.test/debian/\tbookworm\tmain
http://mirror.test/debian/\tbookworm\tcontrib
http://mirror.test/debian/\tbookworm-updates\tmain
http://mirror.test/debian/\tbookworm-backports\tmain
http://mirror.test/security/\tbookworm-security\tmain
http://mirror.test/debian/\tbookworm\tmain
https://vendor.test/debian\tbookworm\tstable
https://vendor.test/apt\tvendor-bookworm\tmain
cdrom:[Debian 12]/\tbookworm\tmain
"""


def test_the_base_comes_from_the_machine_s_own_release_and_nobody_else() -> None:
    assert apt_sources(APT_TARGETS, "bookworm") == [
        "deb http://mirror.test/debian/ bookworm main",
        "deb http://mirror.test/debian/ bookworm-updates main",
        "deb http://mirror.test/security/ bookworm-security main",
    ]


def test_a_local_base_lasts_a_month() -> None:
    days = [datetime.date(2026, 11, 1), datetime.date(2026, 11, 30), datetime.date(2026, 12, 1)]
    first, same, later = (local_name(day) for day in days)
    assert first == same
    assert first != later


def test_a_base_with_other_packages_is_another_one() -> None:
    day = datetime.date(2026, 11, 1)
    assert local_name(day) != local_name(day, (*PACKAGES, *CUDA_PACKAGES))


def test_only_the_trainer_is_built_on_the_base_with_a_compiler() -> None:
    made = recipes({"ACCELERATOR": "cuda"}, "base:1", "base-with-gcc:1")
    bases = {recipe.name: recipe.arguments["BASE_IMAGE"] for recipe in made}
    assert bases == {STORAGE: "base:1", OPERATOR: "base:1", TRAINER: "base-with-gcc:1"}


def test_the_local_base_has_what_the_trainers_images_need() -> None:
    """There is no apt-get in it."""
    text = (ROOT / "trainer-image" / "Dockerfile").read_text()
    (always,) = re.findall(r"needed='([^']*)'", text)
    for_gpus, headers = re.findall(r'needed="\$\{needed\} ([^"]*)"', text)
    assert {*for_gpus.split(), *headers.split()} == set(CUDA_PACKAGES)
    assert set(always.split()) <= set(PACKAGES)
    assert "ibverbs-providers" in CUDA_PACKAGES, "only recommended by libibverbs1, which finds no adapter without it"


def test_the_trainers_image_finds_the_driver_where_gke_mounts_it() -> None:
    (settings,) = re.findall(r"^ENV ((?:.*\\\n)*.*)", (ROOT / "trainer-image" / "Dockerfile").read_text(), re.MULTILINE)
    assert f"LD_LIBRARY_PATH={GKE_DRIVER}" in settings.split()


def test_mounts_for_a_base_vanish_with_the_command(tmp_path: Path) -> None:
    """mmdebstrap mounts /proc and /sys in its folder, which the next run removes."""
    if not (prefix := own_mounts()):
        pytest.skip("mounting is not allowed here")
    subprocess.run([*prefix, "mount", "-t", "tmpfs", "none", tmp_path], check=True)
    assert str(tmp_path) not in Path("/proc/self/mountinfo").read_text()
