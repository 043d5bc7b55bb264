"""Whether a model that is loaded here ended an output itself, and that it is kept with it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from finetune_api.evaluation import Generation
from finetune_api.pod_contracts.run import ModelSource
from finetune_grading.sample import Sample
from finetune_trainer.generate.generation import Generator
from finetune_trainer.outputs.heldout import HeldOutExample, Prompt
from finetune_trainer.outputs.kept_outputs import KeptOutputs
from finetune_trainer.outputs.output import Output
from finetune_trainer.storage.storage import Storage

MODEL = ModelSource(uri="s3://models/m", digest=f"sha256:{'0' * 64}")
GENERATION = Generation(max_tokens=8, temperature=0, samples_per_example=2, seed=1)


class Stored:
    """Objects in memory."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}

    def write(self, location: Any, content: bytes) -> None:
        self.objects[location.uri] = content

    def list_objects(self, folder: Any) -> list[Any]:
        return [SimpleNamespace(path=uri.removeprefix(f"{folder.uri}/")) for uri in self.objects]

    def find(self, location: Any) -> bytes | None:
        return self.objects.get(location.uri)


def test_an_output_has_ended_if_its_last_token_ends_outputs_however_many_it_has() -> None:
    model = SimpleNamespace(generation_config=SimpleNamespace(eos_token_id=[2, 7]))
    generator = Generator(model, None, None)
    assert generator.has_ended([5, 5, 7])
    assert generator.has_ended([7])
    assert not generator.has_ended([5, 5, 5])
    assert not generator.has_ended([2, 5])
    assert not generator.has_ended([])


def test_whether_it_has_ended_is_kept_with_an_output() -> None:
    stored = Stored()

    def kept() -> KeptOutputs:
        example = HeldOutExample(1, Prompt("Say 1"), {})
        return KeptOutputs(cast(Storage, stored), "s3://b/outputs", MODEL, GENERATION, [example])

    def made(*, is_unfinished: bool) -> Output:
        count: dict[str, Any] = {"prompt_tokens": 1, "completion_tokens": 8, "seconds": 1.0, "batch": 0}
        return Output(Sample("said"), **count, is_unfinished=is_unfinished)

    before = kept()
    before.keep({0: made(is_unfinished=True), 1: made(is_unfinished=False)})
    before.write()
    assert {at: one.is_unfinished for at, one in kept().find().items()} == {0: True, 1: False}
