"""Who changes what serves may also clear the API server's record of who owns which field."""

from __future__ import annotations

import pytest

from tests.integration.operator.api import Api
from tests.integration.operator.serving import STRATEGIC, expect_spec, serves

pytestmark = pytest.mark.usefixtures("operator")


def test_what_others_change_and_leave_to_nobody_is_put_right(api: Api) -> None:
    """With our own beside it, the API server would refuse it: two ports of one name, two sources of one volume."""
    serves(api)
    applied = {kind: api.get(kind, "router")["spec"] for kind in ("Service", "Deployment")}
    nobody = {"managedFields": [{}]}
    ports = [{**port, "port": 7777} for port in applied["Service"]["ports"]]
    api.patch("Service", "router", {"metadata": nobody, "spec": {"ports": ports}})
    expect_spec(api, "Service", applied["Service"])
    pod = applied["Deployment"]["template"]["spec"]
    (config,) = [volume for volume in pod["volumes"] if "configMap" in volume]
    volume = {"name": config["name"], "emptyDir": {}, "configMap": None}
    change = {"metadata": nobody, "spec": {"template": {"spec": {"volumes": [volume]}}}}
    api.request("PATCH", api.path("Deployment", "router"), change, STRATEGIC)
    expect_spec(api, "Deployment", applied["Deployment"])
