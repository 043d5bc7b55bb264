"""The registered grader types, and how the graders of a spec are checked and compiled.

Most types are one line in COMPILERS or JUDGED. Multi, which contains other graders, Python, whose code something has
to run, and the cosine similarity of TextSimilarity, which asks an embedding model, are compiled in the functions below;
the type also decides the default pass threshold.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from finetune_api.graders import Grader
from finetune_grading.graders.cosine import compile_cosine
from finetune_grading.graders.interface import CompiledGrader, InvalidGraderError, RowsGrader
from finetune_grading.graders.json_schema import compile_json_schema
from finetune_grading.graders.label_model import compile_label_model
from finetune_grading.graders.multi import compile_multi
from finetune_grading.graders.pairwise import compile_pairwise
from finetune_grading.graders.python import compile_python
from finetune_grading.graders.score_model import compile_score_model
from finetune_grading.graders.string_check import compile_string_check
from finetune_grading.graders.text_similarity import compile_text_similarity, load_text_similarity
from finetune_grading.graders.tool_call import compile_tool_call
from finetune_grading.judge import Embedder, Judge, NeverAsked
from finetune_grading.python_code import NeverRun, PythonRunner

COMPILERS: Mapping[str, Callable[[Grader, float], RowsGrader]] = {
    "StringCheck": compile_string_check,
    "TextSimilarity": compile_text_similarity,
    "JsonSchema": compile_json_schema,
    "ToolCall": compile_tool_call,
}
"""By the type of a grader that needs only the row."""

JUDGED: Mapping[str, Callable[[Grader, float, Mapping[str, Judge]], RowsGrader]] = {
    "ScoreModel": compile_score_model,
    "LabelModel": compile_label_model,
    "Pairwise": compile_pairwise,
}
"""By the type of a grader that asks a model."""


def compile_graders(
    graders: Sequence[Grader],
    judges: Mapping[str, Judge] | None = None,
    embedders: Mapping[str, Embedder] | None = None,
    *,
    runner: PythonRunner | None = None,
    as_rewards: bool = False,
) -> list[CompiledGrader]:
    """Check the graders, before any model is loaded. No I/O. Raises InvalidGraderError.

    `judges` and `embedders`: the models that graders may name. `runner`: runs the code of Python graders; None where
    none may run. `as_rewards`: only scores count, whatever the thresholds make of them.
    """
    names = [grader.name for grader in graders]
    for name in names:
        if names.count(name) > 1:
            raise InvalidGraderError(name, "its name is used twice; give each grader a name of its own.")
    # As with OpenAI, a formula reads no other formula.
    readable = [grader.name for grader in graders if grader.type != "Multi"]
    comparing = [grader.name for grader in graders if grader.type == "Pairwise"]
    binary = [grader.name for grader in graders if is_binary(grader)]
    return [
        compile_multi(grader, pass_threshold(grader), readable, comparing, binary, as_reward=as_rewards)
        if grader.type == "Multi"
        else _compile(grader, judges or {}, embedders or {}, runner)
        for grader in graders
    ]


def check_graders(graders: Sequence[Grader], *, as_rewards: bool = False) -> list[CompiledGrader]:
    """The graders of a spec, compiled without models, to check them. Raises InvalidGraderError."""
    models = {grader.asks: NeverAsked() for grader in graders if grader.asks is not None}
    return compile_graders(graders, models, models, runner=NeverRun(), as_rewards=as_rewards)


def load_graders(graders: Sequence[Grader]) -> None:
    """Load the data that graders read from disk. Raises InvalidGraderError if it is missing."""
    for grader in graders:
        load_text_similarity(grader)


def pass_threshold(grader: Grader) -> float:
    """The lowest score that passes: the spec's, else 1 for graders whose score is 0 or 1, and 0.5 for others."""
    if grader.pass_threshold is not None:
        return grader.pass_threshold
    return 1.0 if is_binary(grader) else 0.5


def is_binary(grader: Grader) -> bool:
    """Whether its score is 0 or 1, and nothing between."""
    partial = grader.tool_call is not None and grader.tool_call.partial_credit
    return grader.type in ("StringCheck", "JsonSchema", "LabelModel") or (grader.type == "ToolCall" and not partial)


def _compile(
    grader: Grader, judges: Mapping[str, Judge], embedders: Mapping[str, Embedder], runner: PythonRunner | None
) -> CompiledGrader:
    threshold = pass_threshold(grader)
    if grader.type == "Python":
        return compile_python(grader, threshold, runner)
    if grader.type in JUDGED:
        return JUDGED[grader.type](grader, threshold, judges)
    if grader.type == "TextSimilarity" and grader.asks is not None:
        return compile_cosine(grader, threshold, embedders)
    return COMPILERS[grader.type](grader, threshold)
