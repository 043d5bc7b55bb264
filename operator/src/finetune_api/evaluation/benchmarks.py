"""Benchmarks of an Evaluation: public tasks of lm-eval, which show what a model has forgotten."""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from pydantic import ConfigDict, Field, StringConstraints

from finetune_api.base import MOST_EXAMPLES, ApiModel, cel
from finetune_api.graders import ShortName
from finetune_api.sources import LONGEST_URI

MOST_BENCHMARKS = 8

BenchmarkTask = Literal[
    "arc_challenge",
    "arc_easy",
    "boolq",
    "gsm8k",
    "hellaswag",
    "ifeval",
    "lambada_openai",
    "mmlu",
    "openbookqa",
    "piqa",
    "truthfulqa_mc1",
    "truthfulqa_mc2",
    "winogrande",
]
"""By the names that lm-eval gives them. Each is tested; none executes code that a model wrote."""
BENCHMARK_TASKS: tuple[str, ...] = get_args(BenchmarkTask)
NO_SHOTS = ("ifeval", "truthfulqa_mc1", "truthfulqa_mc2")
"""Their prompts have examples of their own, or are instructions, of which there are no solved ones."""
GENERATING = ("gsm8k", "ifeval")
"""Their answers are written; of the others, the likeliest choice counts."""
MIRROR_URI_PATTERN = r"^s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]/[^?#\s]+$"
MirrorUri = Annotated[str, StringConstraints(max_length=LONGEST_URI, pattern=MIRROR_URI_PATTERN)]


class BenchmarkMirror(ApiModel):
    """A copy of the benchmarks' datasets, from which alone the Pod reads."""

    uri: MirrorUri = Field(description="s3://bucket/folder that `finetune-trainer mirror-benchmark` has filled.")


class Benchmark(ApiModel):
    """A public task on which every model is measured besides the graders."""

    model_config = ConfigDict(
        json_schema_extra=cel(
            (
                f"!has(self.fewShot) || !(self.task in {list(NO_SHOTS)})",
                "ifeval and truthfulqa have no fewShot: omit it",
                "fewShot",
            ),
            (
                f"!has(self.maxTokens) || self.task in {list(GENERATING)}",
                f"only {' and '.join(GENERATING)} have outputs: omit maxTokens",
                "maxTokens",
            ),
        )
    )

    name: ShortName = Field(description="Name of the benchmark in gates and results; no grader has it.")
    task: BenchmarkTask = Field(description="Task of lm-eval 0.4.13.")
    mirror: BenchmarkMirror
    max_examples: int | None = Field(None, ge=1, le=MOST_EXAMPLES, description="Use the first ones only. Omitted: all.")
    few_shot: int | None = Field(
        None,
        ge=0,
        le=64,
        description="Solved examples in each prompt. Omitted: 5 of gsm8k, 0 of others.",
    )
    max_tokens: int | None = Field(
        None, ge=1, le=32768, description="Maximum number of tokens of an output. Omitted: 256; ifeval: 1280."
    )
    chat_template: bool = Field(
        False,
        description="Whether prompts are conversations in the model's chat template. Published scores of base models "
        "are without.",
    )
