"""FineTuneJob and Evaluation: objects with runs, and what the runs leave behind."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, ClassVar, Self

from finetune_api.evaluation import EvaluationSpec, EvaluationStatus, Score
from finetune_api.finetunejob import FineTuneJobSpec, FineTuneJobStatus, Result
from finetune_client.aio.objects import AsyncClusterObject
from finetune_client.aio.requests import ask
from finetune_client.errors import FineTuneError, ForbiddenError, NoResultError, NotFoundError, StorageError
from finetune_client.kinds import EVALUATIONS, FINE_TUNE_JOBS, Contract, class_path, core_path
from finetune_client.results.metrics import Metrics, parse_results
from finetune_client.results.report import Report
from finetune_client.results.storage import Place, credentials_in, place_of, read_file
from finetune_view.changes import next_run_id, refused_run_id
from finetune_view.fields import Fields


class AsyncRun(AsyncClusterObject):
    """An object whose runs can be suspended, ended and repeated."""

    @property
    def run_id(self) -> str:
        """spec.runId"""
        return self._view.run_id

    async def suspend(self) -> Self:
        """Save what is done and free the accelerators; `resume` continues from it."""
        return await self._within_run({"suspend": True})

    async def resume(self) -> Self:
        """Continue a suspended run; where it has ended meanwhile, the next one is not suspended."""
        return await self._within_run({"suspend": False})

    async def cancel(self) -> Self:
        """End the run for good, as Cancelled. What it has saved stays; `rerun` starts another one."""
        return await self._within_run({"cancel": True})

    async def rerun(self, run_id: str | None = None, *, changes: Mapping[str, Any] | None = None) -> Self:
        """Run again, with a new runId, and with these changes of the spec (as in YAML).

        A run in progress is stopped first, with a checkpoint.
        """
        await self.refresh()
        chosen = next_run_id(self._view) if run_id is None else run_id
        if refused := refused_run_id(self._view, chosen):
            raise FineTuneError(refused)
        again: dict[str, Any] = {"runId": chosen}
        if self._view.fields.at("spec", "cancel").value is True:
            again["cancel"] = False
        return await self._patch({**(changes or {}), **again})

    async def change(self, changes: Mapping[str, Any]) -> Self:
        """Change the spec (as in YAML) without a new run: the run's limits, and an Evaluation's gates.

        Raises InvalidSpecError for what needs a new run, which `rerun` starts.
        """
        if "runId" in changes:
            raise FineTuneError(f"Another runId is another run: {self.contract.variable}.rerun(changes=...).")
        await self.refresh()
        return await self._patch(changes)

    async def _within_run(self, spec: Mapping[str, Any]) -> Self:
        await self.refresh()
        ends_suspension = spec == {"suspend": False} and self._view.fields.at("spec", "suspend").value is True
        if self._view.outcome is not None and not ends_suspension:
            raise FineTuneError(
                f"Run {self.run_id} of {self._view.resource} has ended already, as {self.phase}. "
                f"{self.contract.variable}.rerun() starts another one."
            )
        return await self._patch(spec)

    async def _read(self, uri: str) -> bytes:
        """A file of the run from the storage. Raises StorageError."""
        place = await self._place()
        credentials: Mapping[str, str] = {}
        if self._storage.credentials == "Secret":
            if not place.secret_name:
                raise StorageError(f"It is not known which Secret the Pods of {self._view.resource} use.")
            path = core_path("secrets", self.namespace, place.secret_name)
            secret = await ask(self._connection, "GET", path)
            credentials = credentials_in(secret, place.secret_name)
        return await self._connection.in_thread(read_file, uri, place, credentials)

    async def _place(self) -> Place:
        """Where the files are: the status says it, and the class, where it may be read."""
        status = self._view.status
        storage = Fields(None)
        if name := status.text("className"):
            try:
                found = await ask(self._connection, "GET", class_path(name))
                storage = Fields(found).at("spec", "storage")
            except (ForbiddenError, NotFoundError):
                storage = Fields(None)
        return place_of(status, storage, self._storage)


class AsyncFineTuneJob(AsyncRun):
    """A FineTuneJob."""

    contract: ClassVar[Contract] = FINE_TUNE_JOBS

    @property
    def spec(self) -> FineTuneJobSpec:
        """The spec, with the defaults of its fields."""
        return FineTuneJobSpec.from_another_version(self._view.fields.at("spec").value)

    @property
    def status(self) -> FineTuneJobStatus:
        """The status. Raises UnreadableStatusError (finetune_api.lifecycle) for one of another version."""
        return FineTuneJobStatus.read(self._view.status.value)

    @property
    def result(self) -> Result:
        """The tuned model: URIs, digest, losses. Raises NoResultError if there was none when it was last read."""
        found = self.status.result
        if found is None:
            raise NoResultError(
                f"{self._view.resource} had no result when it was last read (phase {self.phase or 'unknown'}). "
                "job.wait() waits for it."
            )
        return found

    @property
    def seen_metrics(self) -> Metrics:
        """The points of the curve that this handle has seen in the status, which needs no access to the storage."""
        return self._seen.metrics()

    async def metrics(self) -> Metrics:
        """The curves of the run: every step of all attempts, from results.csv. Raises StorageError."""
        await self.refresh()
        folder = self._view.status.text("storageUri")
        if not folder:
            raise NoResultError(f"{self._view.resource} has no folder in the storage yet (phase {self.phase}).")
        uri = f"{folder}/results.csv"
        return parse_results((await self._read(uri)).decode(errors="replace"), uri)

    async def report(self) -> Report:
        """The HTML report of the run, which notebooks show. Raises NoResultError or StorageError."""
        await self.refresh()
        uri = self.result.report_uri
        if uri is None:
            raise NoResultError(f"{self._view.resource} has no report.")
        return Report(uri, (await self._read(uri)).decode(errors="replace"))


class AsyncEvaluation(AsyncRun):
    """An Evaluation."""

    contract: ClassVar[Contract] = EVALUATIONS

    @property
    def spec(self) -> EvaluationSpec:
        """The spec, with the defaults of its fields."""
        return EvaluationSpec.from_another_version(self._view.fields.at("spec").value)

    @property
    def status(self) -> EvaluationStatus:
        """The status. Raises UnreadableStatusError (finetune_api.lifecycle) for one of another version."""
        return EvaluationStatus.read(self._view.status.value)

    @property
    def passed(self) -> bool | None:
        """Whether all gates passed; None while that is not known."""
        return {"True": True, "False": False}.get(self._view.condition("Passed").status)

    @property
    def scores(self) -> list[Score]:
        """The scores of every model from every grader, as they were last read."""
        return self.status.results

    async def report(self) -> dict[str, Any]:
        """report.json: the scores and their configuration. Raises NoResultError or StorageError."""
        await self.refresh()
        uri = self._view.status.text("reportUri")
        if not uri:
            raise NoResultError(f"{self._view.resource} has no report yet (phase {self.phase or 'unknown'}).")
        content = await self._read(uri)
        try:
            found: dict[str, Any] = json.loads(content)
        except ValueError:
            raise StorageError(f"{uri} is not JSON.") from None
        return found
