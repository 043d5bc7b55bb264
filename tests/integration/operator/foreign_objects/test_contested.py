"""Somebody else writes what is served, too: it is put right at once a few times, then rarely, and that is told."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.integration.operator.api import Api, Object, condition, stalled, wait_for
from tests.integration.operator.serving import STRATEGIC, becomes_available, edit, scale, serves, template

pytestmark = pytest.mark.usefixtures("operator")

OURS, THEIRS = "example.com/trainer:1", "example.com/other:1"
IMAGE = "Deployment spec.template.spec.containers[server].image"


def image(api: Api) -> str:
    found: str = template(api)["containers"][0]["image"]
    return found


def set_image(api: Api) -> None:
    edit(api, {"template": {"spec": {"containers": [{"name": "server", "image": THEIRS}]}}}, "helm-controller")


def events(api: Api, reason: str) -> list[Object]:
    return [item for item in api.items("Event") if item["reason"] == reason]


def drift(api: Api) -> dict[str, int]:
    found = api.get("ModelDeployment", "router")["status"].get("drift", [])
    return {item["field"]: item["corrections"] for item in found}


def some_time_passes(api: Api) -> None:
    """As if the last correction had been twenty minutes ago."""
    status: dict[str, Any] = api.get("ModelDeployment", "router")["status"]
    moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() - 20 * 60))
    past = [{**item, "lastCorrectionTime": moment} for item in status["drift"]]
    api.put_status("ModelDeployment", "router", {**status, "drift": past})


def fight(api: Api, write: Callable[[Api], object]) -> Object:
    """Write again and again until it is told; returns the ModelDeployment."""

    def is_told() -> bool:
        write(api)
        time.sleep(0.7)
        return stalled(api.get("ModelDeployment", "router"))[0] == "DriftContested"

    wait_for(is_told, "it is contested")
    return api.get("ModelDeployment", "router")


def test_a_stubborn_writer_is_named_and_not_fought_without_end(api: Api) -> None:
    serves(api)
    contested = fight(api, set_image)
    assert drift(api) == {IMAGE: 5}
    reason, told = stalled(contested)
    assert reason == "DriftContested"
    assert "'helm-controller' keeps setting" in told
    assert IMAGE in told

    set_image(api)
    time.sleep(5)
    assert image(api) == THEIRS
    api.patch("ModelDeployment", "router", {"spec": {"replicas": 2}})
    wait_for(lambda: image(api) == OURS, "a changed spec is applied at once")
    assert api.get("Deployment", "router")["spec"]["replicas"] == 2
    assert len(events(api, "DriftContested")) == 1
    assert len(drift(api)) >= 1

    some_time_passes(api)
    becomes_available(api, contested)
    assert drift(api) == {}


def test_another_field_each_time_by_another_name_is_not_put_back_for_ever(api: Api) -> None:
    """Twenty times in all, or fewer where one change takes two looks; no field of these is changed twice."""
    serves(api)

    def variables() -> list[str]:
        return [one["name"] for one in template(api)["containers"][0].get("env", []) if one["name"].startswith("X")]

    def rounds() -> int:
        found: int = api.get("ModelDeployment", "router")["status"].get("driftRounds", {}).get("count", 0)
        return found

    def add(name: str) -> None:
        env = {"name": "server", "env": [{"name": name, "value": "b"}]}
        edit(api, {"template": {"spec": {"containers": [env]}}}, f"manager-of-{name.lower()}")

    for number in range(20):
        add(f"X{number}")
        wait_for(lambda: variables() == [] or rounds() >= 20, "it is removed")
        if rounds() >= 20:
            break
    wait_for(lambda: rounds() >= 20, "all are counted")
    api.wait_reason("ModelDeployment", "router", "DriftContested")
    add("XLAST")
    time.sleep(3)
    assert "XLAST" in variables(), "it is left for a minute"


def test_once_the_other_one_stops_what_it_left_is_put_back(api: Api) -> None:
    deployment = serves(api)
    env = {"name": "server", "env": [{"name": "A", "value": "b"}]}
    fight(api, lambda api: edit(api, {"template": {"spec": {"containers": [env]}}}, "flux"))
    api.wait_reason("ModelDeployment", "router", "DriftContested")
    some_time_passes(api)
    becomes_available(api, deployment)


def test_who_writes_once_is_no_contest(api: Api) -> None:
    serves(api)
    set_image(api)
    wait_for(lambda: image(api) == OURS, "the image is put back")
    wait_for(lambda: drift(api) == {IMAGE: 1}, "it is counted")
    time.sleep(2)
    assert stalled(api.get("ModelDeployment", "router")) == ("", "")
    assert events(api, "DriftContested") == []


def test_an_autoscaler_of_the_model_deployment_is_obeyed_however_often(api: Api) -> None:
    serves(api)
    for number in (2, 1, 2, 1, 2, 1, 2):
        scale(api, "ModelDeployment", number)
        wait_for(lambda count=number: api.get("Deployment", "router")["spec"]["replicas"] == count, "scaled")  # type: ignore[misc]
    assert drift(api) == {}
    assert condition(api.get("ModelDeployment", "router"), "Stalled")["status"] == "False"


def test_an_autoscaler_of_the_deployment_is_told_where_to_aim(api: Api) -> None:
    serves(api)
    told = stalled(fight(api, lambda api: scale(api, "Deployment", 3)))[1]
    assert "an autoscaler's target is the ModelDeployment" in told


def test_a_writer_of_the_service_is_named(api: Api) -> None:
    serves(api)
    path = f"{api.path('Service', 'router')}?fieldManager=mesh"
    body = {"spec": {"selector": {"finetune.dev/role": "other"}}}
    told = stalled(fight(api, lambda api: api.request("PATCH", path, body, STRATEGIC)))[1]
    assert "'mesh' keeps setting Service spec.selector" in told
