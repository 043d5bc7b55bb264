"""The attacks of a run: put to every model, and judged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from finetune_api.evaluation.safety import Safety
from finetune_api.pod_contracts.run import EvaluateRun, ModelSource
from finetune_trainer.data.screen.classifier import try_classifier
from finetune_trainer.endpoints.asked_model import AskedModel
from finetune_trainer.endpoints.asking import ask_all
from finetune_trainer.evaluation.safety.attack import Attacked, generation_of, ignore_verdict, judge_answers
from finetune_trainer.evaluation.safety.prompts import Attempt, attempts_of
from finetune_trainer.outputs.endpoint_outputs import ask_model
from finetune_trainer.outputs.loaded_outputs import Load, generate_outputs
from finetune_trainer.outputs.output import Output, Outputs
from finetune_trainer.outputs.shard import WHOLE, Shard
from finetune_trainer.report.evaluation_progress import OutputCounter
from finetune_trainer.storage.storage import Storage


class Attacks:
    """The attacks of a run, and how the models have answered them; without spec.safety none. Raises DiagnosedError."""

    def __init__(self, run: EvaluateRun, storage: Storage) -> None:
        self._settings = run.safety
        self._storage = storage
        self._attempts: list[Attempt] = []
        self._run = run
        if run.safety is not None:
            self._attempts = attempts_of(run.safety, storage, run.allowed_datasets)
            # Models answer greedily, and messages name the requests.
            update = {"generation": generation_of(run.safety), "dataset_uri": "spec.safety"}
            self._run = run.model_copy(update=update)
        self._examples = [one.example for one in self._attempts]
        self._answers: dict[str, list[Output]] = {}

    @property
    def steps(self) -> int:
        """The answers of a model, and the verdicts on them."""
        is_asked = self._settings is not None and self._settings.classifier is not None
        return len(self._attempts) * (2 if is_asked else 1)

    def put_to_loaded(
        self, name: str, model: ModelSource, load: Load, progress: OutputCounter, shard: Shard = WHOLE
    ) -> None:
        """Let a model answer that is loaded here, while it is: this Pod's shard of the requests."""
        if self._examples:
            found = generate_outputs(name, model, self._run, self._examples, self._storage, progress, load, shard)
            self._answers[name] = found

    def judged(self, models: Mapping[str, AskedModel], progress: OutputCounter) -> Attacked | None:
        """Let the models behind an API answer, and judge all answers."""
        if self._settings is None:
            return None
        for one in self._run.models:
            if one.endpoint is not None:
                asked = models[one.endpoint]
                found = ask_model(one.name, asked, self._run, self._examples, self._storage, progress)
                self._answers[one.name] = found
        answers = {one.name: self._answers[one.name] for one in self._run.models}
        return judge_attacks(self._settings, self._attempts, answers, models, progress)


def judge_attacks(
    settings: Safety,
    attempts: Sequence[Attempt],
    outputs: Outputs,
    models: Mapping[str, AskedModel],
    progress: OutputCounter,
) -> Attacked:
    """Judge the models' answers. Raises DiagnosedError."""
    asked = None if settings.classifier is None else models[settings.classifier.model]
    endpoint = None if asked is None else asked.endpoint
    on_verdict = progress.made if asked is not None else ignore_verdict
    verdicts = ask_all(
        lambda: judge_answers(attempts, outputs, settings.classifier, endpoint, on_verdict),
        {} if asked is None else {asked.endpoint.config.name: asked},
        "judging the answers to attacks",
    )
    return Attacked(attempts, outputs, verdicts)


def try_safety(settings: Safety | None, models: Mapping[str, AskedModel]) -> list[str]:
    """Ask the classifier once; a warning where only rules judge. Raises DiagnosedError."""
    if settings is None:
        return []
    classifier = settings.classifier
    if classifier is None:
        return [
            "SafetyByRules: only rules judge the answers to attacks, by the words of a refusal. An answer that does "
            "not refuse counts as harmful, even if it is not, and no safety gate passes: name a safety.classifier."
        ]
    asked = models[classifier.model]
    ask_all(
        lambda: try_classifier(asked.endpoint, classifier, "safety.classifier"),
        {asked.endpoint.config.name: asked},
        "trying the classifier",
    )
    return []
