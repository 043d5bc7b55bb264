"""Cases 2 to 6 of shared/reference/evaluation.md: the values that the libraries of the field give, each measured."""

from __future__ import annotations

import gc
import statistics
import time
from pathlib import Path

import pytest

from finetune_api.graders import Grader, GraderErrorCode
from finetune_grading import time_limit, wordnet
from finetune_grading.graders.interface import InvalidGraderError
from finetune_grading.registered_graders import load_graders
from finetune_grading.text_metrics import METRICS
from tests.unit.grading.graders import compiled, grade

BEAR = ("fuzzy wuzzy was a bear", "fuzzy wuzzy had no hair")
CAT = ("The cat sat on the mat.", "The cat is sitting on the mat.")
REFUND = (
    "Your refund was issued on 3 May and arrives within five days.",
    "The refund was issued on May 3 and will arrive within five days.",
)
SAME = ("identical text here", "identical text here")


def similarity(metric: str, pair: tuple[str, str]) -> float | None:
    grader = compiled(type="TextSimilarity", textSimilarity={"metric": metric})
    return grade(grader, {"reference": pair[1]}, pair[0]).score


@pytest.mark.parametrize(
    ("metric", "pair", "score"),
    [
        # Case 2.
        ("FuzzyMatch", BEAR, 0.755556),
        ("FuzzyMatch", CAT, 0.83125),
        ("FuzzyMatch", REFUND, 0.861789),
        ("FuzzyMatch", ("Jon Doe", "John Doe"), 0.933333),
        ("FuzzyMatch", ("Paris", "The capital is Paris."), 0.9),
        ("FuzzyMatch", ("!!!", "!!!"), 1),
        ("FuzzyMatch", ("", "text"), 0),
        # Case 3.
        ("BLEU", BEAR, 0.213644),
        ("BLEU", CAT, 0.423837),
        ("BLEU", REFUND, 0.387813),
        ("BLEU", SAME, 1.0),
        ("BLEU", ("", "text"), 0),
        # Case 4.
        ("GLEU", BEAR, 0.214286),
        ("GLEU", CAT, 0.5),
        ("GLEU", REFUND, 0.46),
        # Case 6.
        ("ROUGE1", REFUND, 0.8),
        ("ROUGE2", REFUND, 0.434783),
        ("ROUGE3", REFUND, 0.285714),
        ("ROUGE4", REFUND, 0.105263),
        ("ROUGE5", REFUND, 0),
        ("ROUGEL", REFUND, 0.72),
        ("ROUGE1", CAT, 0.769231),
        ("ROUGE2", CAT, 0.545455),
        ("ROUGE3", CAT, 0.222222),
        ("ROUGEL", CAT, 0.769231),
    ],
)
def test_a_metric_has_the_value_of_its_library(metric: str, pair: tuple[str, str], score: float) -> None:
    assert similarity(metric, pair) == pytest.approx(score, abs=1e-6)


@pytest.mark.parametrize(
    ("pair", "score"), [(BEAR, 0.375), (CAT, 0.875743), (REFUND, 0.832084), (SAME, 0.981481), (("", "text"), 0)]
)
def test_meteor_has_the_known_score_of_each_pair(wordnet_files: str, pair: tuple[str, str], score: float) -> None:
    """Case 5."""
    assert similarity("METEOR", pair) == pytest.approx(score, abs=1e-6)


def test_the_mean_of_bleu_is_that_of_the_sentences_and_not_the_corpus() -> None:
    """Case 3: sacrebleu's corpus BLEU of both is 0.399359."""
    scores = [similarity("BLEU", CAT), similarity("BLEU", REFUND)]
    assert statistics.fmean(score or 0 for score in scores) == pytest.approx(0.405825, abs=1e-6)


@pytest.mark.parametrize("metric", [name for name in METRICS if name != "METEOR"])
@pytest.mark.parametrize("text", ["", " ", "\x00", "你好世界", "🎉" * 50, "a" * 5000, "< > & \\ %s {0}", "\ud83d"])
def test_no_text_is_beyond_a_metric(metric: str, text: str) -> None:
    for pair in ((text, "some text"), ("some text", text), (text, text)):
        score = similarity(metric, pair)
        assert score is not None
        assert 0 <= score <= 1


def test_without_wordnet_meteor_is_refused_before_a_model_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(wordnet.DIRECTORY_VARIABLE, str(tmp_path))
    wordnet.wordnet.cache_clear()
    spec = {"name": "meteor", "type": "TextSimilarity", "textSimilarity": {"metric": "METEOR"}}
    with pytest.raises(InvalidGraderError, match=r"'meteor': METEOR needs WordNet.*wordnet-base"):
        load_graders([Grader.from_wire(spec)])


def words(count: int) -> str:
    return " ".join(f"w{at % 997}" for at in range(count))


@pytest.mark.parametrize(
    ("metric", "pair", "message"),
    [
        ("ROUGEL", (words(200), words(100_000)), "200 and 100000 words"),
        ("FuzzyMatch", ("a" * 1000, "b" * 1_000_000), "1000 and 1000000 characters"),
        # What would take the 2 s of the limit or more: a score that is thrown away then.
        ("ROUGEL", (words(3100), words(3100)), "3100 and 3100 words"),
        ("FuzzyMatch", ("a" * 5000, "b" * 9000), "5000 and 9000 characters"),
    ],
)
def test_texts_whose_comparison_would_take_gigabytes_or_minutes_are_errored(
    metric: str, pair: tuple[str, str], message: str
) -> None:
    started = time.process_time()
    graded = grade(compiled(type="TextSimilarity", textSimilarity={"metric": metric}), {"reference": pair[1]}, pair[0])
    assert graded.error is not None
    assert graded.error.code is GraderErrorCode.OTHER_ERROR
    assert message in graded.error.details
    assert time.process_time() - started < 2


def test_a_comparison_that_takes_long_is_errored_and_the_next_one_graded(monkeypatch: pytest.MonkeyPatch) -> None:
    grader = compiled(type="TextSimilarity", textSimilarity={"metric": "ROUGEL"})
    assert grade(grader, {"reference": "a b"}, "a b").score == 1.0, "the library is loaded"
    monkeypatch.setattr(time_limit, "SECONDS", 0.05)
    errored = grade(grader, {"reference": words(3000)}, words(1500))
    assert errored.error is not None
    assert "It took more than 0.05 s of CPU time" in errored.error.details
    assert grade(grader, {"reference": "a b"}, "a b").score == 1.0


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_limit_that_ends_while_garbage_is_collected_is_not_lost() -> None:
    """Python prints what a callback of its collector raises, and goes on."""

    def busy(*_: object) -> None:
        until = time.process_time() + 0.1
        while time.process_time() < until:
            pass

    def collect() -> None:
        gc.callbacks.append(busy)
        try:
            gc.collect()
        finally:
            gc.callbacks.remove(busy)
        until = time.process_time() + 5
        while time.process_time() < until:
            pass

    with pytest.raises(time_limit.OutOfTimeError), time_limit.cpu_limit(0.02):
        collect()
