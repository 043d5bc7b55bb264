"""The object that is to be created, from a spec, a dict or a YAML file; and whether one that exists is the same. Pure
but for reading the file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from finetune_api.base import ANOTHER_VERSION, API_VERSION, ApiModel, problems
from finetune_client.errors import INVALID, DifferentSpecError, FineTuneError, InvalidSpecError
from finetune_client.kinds import Contract, checked_name
from finetune_view.fields import Object

Given = ApiModel | Mapping[str, Any] | str | PathLike[str]
"""A spec, as a model of finetune_api or a dict; a whole object as a dict; or the path of a YAML file with one."""
MOST_BYTES = 4 * 2**20
MOST_DIFFERENCES = 5


def manifest_of(
    contract: Contract,
    given: Given,
    name: str | None,
    namespace: str,
    labels: Mapping[str, str] | None = None,
    annotations: Mapping[str, str] | None = None,
) -> Object:
    """The object to create. Raises FineTuneError for what can't be one."""
    whole = _whole(contract, given, name)
    metadata: Object = dict(whole.get("metadata") or {})
    if name is not None:
        metadata["name"] = name
    chosen = checked_name(contract.kind.name, metadata.get("name"), 'Pass one: create(spec, name="my-run").')
    if metadata.setdefault("namespace", namespace) != namespace:
        raise FineTuneError(
            f"{contract.kind.name} {chosen} names the namespace {metadata['namespace']!r}, and this client is for "
            f"{namespace!r}. Use a client of that namespace: FineTuneClient(namespace={metadata['namespace']!r})."
        )
    for key, more in (("labels", labels), ("annotations", annotations)):
        if more:
            metadata[key] = {**(metadata.get(key) or {}), **more}
    spec = whole.get("spec")
    try:
        contract.spec.from_wire(spec)
    except ValidationError as error:
        raise InvalidSpecError(INVALID, "Invalid", f"{contract.kind.name} {chosen}: spec.{problems(error)}") from None
    return {"apiVersion": API_VERSION, "kind": contract.kind.name, "metadata": metadata, "spec": spec}


def _whole(contract: Contract, given: Given, name: str | None) -> Object:
    if isinstance(given, ApiModel):
        if not isinstance(given, contract.spec):
            raise FineTuneError(f"{type(given).__name__} is not the spec of a {contract.kind.name}.")
        # What was not set is left to the API server's defaults, as in YAML.
        return {"spec": given.model_dump(mode="json", by_alias=True, exclude_unset=True, exclude_none=True)}
    if isinstance(given, Mapping):
        return _of_kind(contract, given) if "kind" in given or "spec" in given else {"spec": dict(given)}
    return _from_file(contract, Path(given), name)


def _of_kind(contract: Contract, given: Mapping[str, Any]) -> Object:
    kind, version = given.get("kind", contract.kind.name), given.get("apiVersion", API_VERSION)
    if (kind, version) != (contract.kind.name, API_VERSION):
        raise FineTuneError(f"A {contract.kind.name} of {API_VERSION} is expected, and this is a {kind} of {version}.")
    return dict(given)


def _from_file(contract: Contract, file: Path, name: str | None) -> Object:
    try:
        text = file.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise FineTuneError(f"{file} is not a text in UTF-8.") from None
    except OSError as error:
        raise FineTuneError(f"{file} can't be read: {error.strerror}.") from None
    if len(text) > MOST_BYTES:
        raise FineTuneError(f"{file} is larger than {MOST_BYTES} bytes: is it YAML?")
    try:
        documents = [found for found in yaml.safe_load_all(text) if isinstance(found, dict)]
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise FineTuneError(f"{file} is not YAML: {' '.join(str(error).split())[:300]}") from None
    found = [one for one in documents if one.get("kind") == contract.kind.name]
    if len(found) > 1 and name is not None:
        found = [one for one in found if (one.get("metadata") or {}).get("name") == name]
    if len(found) != 1:
        kinds = ", ".join(str(one.get("kind")) for one in documents) or "nothing"
        raise FineTuneError(f"{file} must have one {contract.kind.name}, or name= must choose one; it has {kinds}.")
    return _of_kind(contract, found[0])


def check_same(contract: Contract, wanted: Object, live: Object) -> None:
    """Raises DifferentSpecError unless the object that exists asks for what is wanted.

    Defaults count as written out. What may change during a run (suspend, runId, ...) counts where it is wanted, and
    fields that only another version of the operator knows do not count.
    """
    given = contract.spec.from_wire(wanted["spec"])
    ours, theirs = given.to_wire(), _known(contract, live).to_wire()
    for field in contract.changeable - wanted["spec"].keys():
        ours.pop(field, None)
        theirs.pop(field, None)
    found = list(_differences(theirs, ours, "spec"))
    if not found:
        return
    name = wanted["metadata"]["name"]
    shown = [f"{path}: it has {has}, given is {want}" for path, has, want in found[:MOST_DIFFERENCES]]
    more = f", and {len(found) - MOST_DIFFERENCES} more" if len(found) > MOST_DIFFERENCES else ""
    raise DifferentSpecError(
        f"{contract.kind.name} {name} exists in {wanted['metadata']['namespace']} with another spec "
        f"({'; '.join(shown)}{more}). Choose another name, take the one that exists "
        f"({contract.collection}.get({name!r})), or change that one ({_change(contract, found)}).",
        found,
    )


def _change(contract: Contract, differences: Sequence[tuple[str, str, str]]) -> str:
    """How the object that exists is made to ask for it; no new run where none is needed."""
    fields = {path.split(".")[1] for path, _, _ in differences}
    return f"{contract.variable}.change(...)" if fields <= contract.changeable - {"runId"} else contract.change


def _known(contract: Contract, live: Object) -> ApiModel:
    """What this version knows of the spec of an object that exists."""
    try:
        return contract.spec.model_validate(live.get("spec"), extra="ignore", context=ANOTHER_VERSION)
    except ValidationError as error:
        name = live["metadata"]["name"]
        raise FineTuneError(
            f"{contract.kind.name} {name} exists in {live['metadata']['namespace']}, and this version of the client "
            f"can't read it: spec.{problems(error)}. Install the client of the operator's version, or choose another "
            "name."
        ) from None


def _differences(has: Any, want: Any, path: str) -> Iterator[tuple[str, str, str]]:
    if isinstance(has, dict) and isinstance(want, dict):
        for key in sorted(has.keys() | want.keys()):
            yield from _differences(has.get(key), want.get(key), f"{path}.{key}")
    elif has != want:
        yield path, _shown(has), _shown(want)


def _shown(value: Any) -> str:
    text = "nothing" if value is None else repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
