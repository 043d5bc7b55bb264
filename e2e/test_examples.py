"""Every example that needs no GPU runs in the cluster: all are applied at once, and each becomes Ready."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from e2e.conftest import Shown
from e2e.demo import scenario
from e2e.demo.api import Api, Object, condition
from e2e.demo.scenario import BUCKET, DATASET_KEY, DEPLOYMENTS, EVALUATIONS, JOBS, QUICKSTART, Platform
from e2e.s3 import reach
from e2e.steps import Step, StepFailed, step

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1200)]

EXAMPLES = QUICKSTART.parent / "capabilities"
NAMESPACE = "examples"
DATASETS, SWEEPS = "datasets", "finetunesweeps"
PLURALS = {
    "FineTuneJob": JOBS,
    "Evaluation": EVALUATIONS,
    "ModelDeployment": DEPLOYMENTS,
    "Dataset": DATASETS,
    "FineTuneSweep": SWEEPS,
}
READY_SECONDS = 720.0
POLL_SECONDS = 1.0
FAILED = frozenset(
    {(plural, "Failed") for plural in (JOBS, EVALUATIONS, DATASETS, SWEEPS)}
    | {(EVALUATIONS, phase) for phase in ("GateFailed", "Inconclusive")}
)
"""The phases that nothing changes by itself."""

FOLLOW_UPS: dict[str, tuple[str, dict[str, Any]]] = {
    "suspended": ("Suspended", {"suspend": False}),
    "run-again": ("Succeeded", {"runId": "2", "hyperparameters": {"epochs": 2}}),
}
"""What the comment of an example says to do next: once the reason of Ready is this, the spec is patched so."""


@pytest.fixture(scope="module")
def ready(platform: Platform, shown: Shown) -> Iterator[dict[str, Object]]:
    """The status of every example, by name, once all of them are Ready."""
    api = platform.api
    documents = [yaml.safe_load((EXAMPLES / name).read_text()) for name in runnable()]
    with shown():
        scenario.upload(platform)
        with reach(platform.storage) as s3:
            s3.put(BUCKET, f"{DATASET_KEY}/prompt-completion.jsonl", prompt_completion())
            s3.put(BUCKET, f"{DATASET_KEY}/preferences.jsonl", preferences())
            s3.put(BUCKET, f"{DATASET_KEY}/prompts.jsonl", prompts())
        with step("Apply every example that needs no GPU"):
            # What a run that was ended left behind has had its follow-ups.
            api.kubectl("delete", "namespace", NAMESPACE, "--ignore-not-found", "--timeout=120s", timeout=150)
            api.kubectl("apply", "-f", EXAMPLES / "namespace.yaml")
            api.kubectl("apply", "-f", QUICKSTART / "2-finetuneclass.yaml")
            secret = scenario.credentials(platform.storage, NAMESPACE)
            api.kubectl("apply", "-f", "-", stdin=yaml.safe_dump(secret))
            api.kubectl("apply", "-f", "-", stdin=yaml.safe_dump_all(documents))
        try:
            with step(f"Wait until all {len(documents)} are Ready") as current:
                found = all_ready(api, documents, current)
            yield {name: item["status"] for name, item in found.items()}
        finally:
            with step("Remove the examples"):
                api.remove_namespace(NAMESPACE)


def test_all_ran(ready: dict[str, Object]) -> None:
    assert sorted(ready) == sorted(name.removesuffix(".yaml") for name in runnable())


def test_a_job_and_its_evaluation_read_the_same_revision_of_a_dataset(ready: dict[str, Object]) -> None:
    digest = ready["dataset"]["revision"]["digest"]
    pinned = [*ready["dataset-ref"]["datasetRevisions"].values(), ready["dataset-ref-evaluation"]["datasetRevision"]]
    assert [(one["split"], one["digest"]) for one in pinned] == [
        (split, digest) for split in ("training", "validation", "test")
    ]


def test_a_teacher_s_completions_are_a_dataset_of_their_own(ready: dict[str, Object]) -> None:
    status = ready["generated-dataset"]
    assert status["revision"]["generated"]["completions"] == 32
    assert 0 < status["revision"]["examples"] <= status["revision"]["generated"]["kept"] <= 32
    assert status["usage"][0]["requests"] == 32


def test_full_fine_tuning_makes_a_whole_model(ready: dict[str, Object]) -> None:
    assert ready["sft-lora"]["result"]["adapterType"] == "LoRA"
    assert ready["full-fine-tuning"]["result"]["adapterType"] == "Full"
    assert ready["fsdp"]["result"]["adapterType"] == "Full"


def test_prompt_completion_pairs_are_recognised(ready: dict[str, Object]) -> None:
    assert ready["prompt-completion"]["dataset"]["format"] == "PromptCompletion"
    assert ready["sft-lora"]["dataset"]["format"] == "Chat"


def test_a_job_goes_on_from_the_result_of_another(ready: dict[str, Object]) -> None:
    first = ready["sft-lora"]["result"]
    for name in ("continual", "dpo"):
        status = ready[name]
        assert status["startingModel"]["adapterUri"] == first["uri"]
        assert status["startingModel"]["digest"] == first["digest"]
        assert status["result"]["baseModelUri"] == first["baseModelUri"]


def test_subset_and_split_are_as_large_as_asked_for(ready: dict[str, Object]) -> None:
    assert ready["subset-first"]["dataset"]["training"]["examples"] == 75
    assert ready["validation-split"]["dataset"]["training"]["examples"] == 135
    assert ready["validation-split"]["dataset"]["validation"]["examples"] == 15


def test_best_checkpoint_is_the_result_and_the_newest_are_kept(ready: dict[str, Object]) -> None:
    status = ready["best-checkpoint"]
    kept = {checkpoint["step"] for checkpoint in status["checkpoints"]}
    assert status["result"]["step"] in kept
    assert {40, 60} <= kept
    assert len(kept) <= 3


def test_suspended_job_ran_once_it_was_resumed(ready: dict[str, Object]) -> None:
    assert ready["suspended"]["phase"] == "Succeeded"


def test_changed_run_id_ran_again_and_the_first_run_is_remembered(ready: dict[str, Object]) -> None:
    status = ready["run-again"]
    assert status["runId"] == "2"
    assert status["resolved"]["epochs"] == 2
    assert [(run["runId"], run["phase"]) for run in status["history"]] == [("1", "Succeeded")]


def test_sweep_trained_with_each_rank_and_named_the_one_with_the_lower_loss(ready: dict[str, Object]) -> None:
    status = ready["sweep-grid"]
    scores = {trial["values"]["adapter.lora.rank"]: trial["score"] for trial in status["trials"]}
    assert sorted(scores) == [4, 16]
    assert status["best"]["values"]["adapter.lora.rank"] == min(scores, key=lambda rank: scores[rank])
    assert status["best"]["score"] == pytest.approx(min(scores.values()), rel=1e-5), "six digits of it"


def test_evaluation_scored_both_models_by_every_grader(ready: dict[str, Object]) -> None:
    scored = {(score["candidate"], score["grader"]) for score in ready["evaluation"]["results"]}
    graders = ("exact", "similarity", "words", "meteor", "form", "overall")
    assert scored == {(candidate, grader) for candidate in ("baseline", "tuned") for grader in graders}


def test_deployment_serves_what_the_evaluation_passed(ready: dict[str, Object]) -> None:
    assert ready["gated-deployment"]["revision"] == ready["evaluation"]["candidateDigests"]["tuned"]


def runnable() -> list[str]:
    """The files that the README marks as running on a CPU."""
    rows = (EXAMPLES / "README.md").read_text().splitlines()
    return [found[1] for row in rows if (found := re.search(r"\]\(([\w-]+\.yaml)\) \| CPU \|$", row))]


def prompt_completion() -> bytes:
    """The validation examples, as the comment in prompt-completion.yaml makes them."""
    lines = (QUICKSTART / "data" / "valid.jsonl").read_text().splitlines()
    found = [json.loads(line)["messages"] for line in lines]
    pairs = [{"prompt": asked["content"], "completion": answer["content"]} for *_, asked, answer in found]
    return "".join(f"{json.dumps(pair)}\n" for pair in pairs).encode()


def preferences() -> bytes:
    """Pairs of the right answer and that of the next example, as the comment in dpo.yaml makes them."""
    lines = (QUICKSTART / "data" / "valid.jsonl").read_text().splitlines()
    found = [json.loads(line)["messages"] for line in lines]
    pairs = [
        {"prompt": messages[:-1], "chosen": messages[-1:], "rejected": others[-1:]}
        for messages, others in zip(found, [*found[1:], found[0]], strict=True)
        if messages[-1] != others[-1]
    ]
    return "".join(f"{json.dumps(pair)}\n" for pair in pairs).encode()


def prompts() -> bytes:
    """The questions with their answers for graders, as the comment in rft.yaml makes them."""
    lines = (QUICKSTART / "data" / "valid.jsonl").read_text().splitlines()
    found = [json.loads(line)["messages"] for line in lines]
    asked = [{"messages": messages[:-1], "answer": messages[-1]["content"]} for messages in found]
    return "".join(f"{json.dumps(line)}\n" for line in asked).encode()


def all_ready(api: Api, documents: list[Object], current: Step) -> dict[str, Object]:
    """The objects by name, once each is Ready, follow-ups included.

    Pods wait for one another's memory, so a Pod that can't be scheduled yet is no failure here. Raises StepFailed when
    one of them has failed for good, or when the time is over.
    """
    waiting = {document["metadata"]["name"]: PLURALS[document["kind"]] for document in documents}
    follow_ups = dict(FOLLOW_UPS)
    done: dict[str, Object] = {}
    deadline = time.monotonic() + READY_SECONDS
    while waiting:
        for name, plural in list(waiting.items()):
            item = api.get(plural, NAMESPACE, name)
            status = item.get("status", {})
            if status.get("observedGeneration") != item["metadata"]["generation"]:
                continue
            found = condition(item, "Ready")
            reason, patch = follow_ups.get(name, ("", None))
            if patch is not None and found.get("reason") == reason:
                del follow_ups[name]
                patch_spec(api, plural, name, patch)
            elif patch is None and found.get("status") == "True":
                done[name] = item
                del waiting[name]
            elif (plural, status.get("phase")) in FAILED:
                raise StepFailed(f"{name}: {found.get('reason')}: {found.get('message')}")
        current.say(f"{len(done)} of {len(documents)}; waiting for {', '.join(waiting)}")
        if time.monotonic() > deadline:
            raise StepFailed("not Ready in time:\n" + "\n".join(describe(api, *one) for one in waiting.items()))
        time.sleep(POLL_SECONDS)
    return done


def patch_spec(api: Api, plural: str, name: str, spec: dict[str, Any]) -> None:
    """`kubectl patch --type=merge`, as the example's comment says."""
    patch = json.dumps({"spec": spec})
    api.kubectl("-n", NAMESPACE, "patch", plural, name, "--type=merge", "-p", patch)


def describe(api: Api, name: str, plural: str) -> str:
    """Where an object stands, in one line."""
    found = condition(api.get(plural, NAMESPACE, name), "Ready")
    return f"{plural}/{name}: {found.get('reason')}: {found.get('message')}"
