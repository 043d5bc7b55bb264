"""docs/reference/network-ports.md names every port that anything of ours listens at, as the code and the chart do."""

from __future__ import annotations

import re

import yaml

from finetune_api.pod_contracts.run import METRICS_PORT, RENDEZVOUS_PORT, SERVING_PORT
from finetune_operator.modeldeployment.objects import SERVICE_PORT
from tests.unit.docs.pages import ROOT, blocks

PAGE = ROOT / "docs" / "reference" / "network-ports.md"
OPERATOR = (ROOT / "charts/finetune-operator/templates/deployment.yaml").read_text()
LISTENING = PAGE.read_text().partition("## Outgoing connections")[0]


def test_every_port_of_the_operator_is_named() -> None:
    ports = dict(re.findall(r"name: (\w+), containerPort: (\d+)", OPERATOR))
    assert ports.keys() == {"health", "progress", "metrics"}
    for name, port in ports.items():
        assert f"| operator | {port} `{name}` |" in LISTENING


def test_every_port_of_a_pod_is_named() -> None:
    assert f"| training (`train`) | {RENDEZVOUS_PORT} `rendezvous` |" in LISTENING
    assert f"| training (`train`) | {METRICS_PORT} `metrics` |" in LISTENING
    assert f"| server (`serve`, of a canary: `canary`) | {SERVING_PORT} `http` |" in LISTENING
    assert f"| gateway (`gateway`) | {SERVING_PORT} `http` |" in LISTENING
    assert f"| gateway (`gateway`) | {METRICS_PORT} `metrics` |" in LISTENING
    assert f"the Service's port {SERVICE_PORT};" in LISTENING


def test_the_policies_name_ports_that_the_page_names() -> None:
    policies = [yaml.safe_load(block.text) for block in blocks() if block.page == PAGE and block.language == "yaml"]
    assert len(policies) == 3
    listening = {int(port) for port in re.findall(r"\b(\d{2,5})\b", PAGE.read_text().partition("## Policies")[0])}
    storage = {8333}  # of the quickstart
    for policy in policies:
        rules = [*policy["spec"].get("ingress", []), *policy["spec"].get("egress", [])]
        assert rules
        named = {port["port"] for rule in rules for port in rule.get("ports", [])}
        assert named <= listening | storage
