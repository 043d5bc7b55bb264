"""`compare`: two jobs beside each other."""

from __future__ import annotations

from finetune_view.object_view import object_view
from kubectl_finetune.display.compare import comparison, scores_of
from tests.unit.kubectl_finetune.cluster_objects import SUCCEEDED, TRAINING, seen


def test_what_differs_is_shown_and_what_is_the_same_is_not() -> None:
    first = seen(SUCCEEDED, spec={"hyperparameters": {"learningRate": 0.0002}})
    second = seen({**TRAINING, "resolved": {"batchSize": 8}}, spec={"hyperparameters": {"learningRate": 0.0001}})
    rows = {name: (ours, theirs) for name, ours, theirs in comparison(first, second)}
    assert rows["phase"] == ("Succeeded", "Training")
    assert rows["validation loss"] == ("0.5", "0.61"), "of the result, or the newest"
    assert rows["took"] == ("59m", "-")
    assert rows["hyperparameters.learningRate"] == ("0.0002", "0.0001")
    assert rows["resolved.batchSize"] == ("-", "8")
    assert "model.uri" not in rows and "retryLimit" not in rows


def test_a_job_that_has_chosen_nothing_yet_differs_in_what_the_other_chose_and_in_no_row_without_a_name() -> None:
    rows = {name for name, _, _ in comparison(seen({**TRAINING, "resolved": {"batchSize": 8}}), object_view({}))}
    assert "resolved.batchSize" in rows and "resolved." not in rows


def test_scores_are_those_of_the_jobs_result() -> None:
    spec = {
        "candidates": [
            {"name": "tuned", "model": {"fineTuneJobRef": {"name": "router"}}},
            {"name": "other", "model": {"fineTuneJobRef": {"name": "another"}}},
        ]
    }
    results = [{"candidate": name, "grader": "exact", "score": 0.5, "examples": 9} for name in ("tuned", "other")]
    evaluation = object_view({"metadata": {"name": "e"}, "spec": spec, "status": {"results": results}})
    assert scores_of([evaluation], seen(SUCCEEDED)) == ["e: tuned, exact: 0.5, 9 examples"]


def test_jobs_without_a_status_can_be_compared() -> None:
    assert comparison(object_view({}), object_view({"spec": [], "status": 7}))
