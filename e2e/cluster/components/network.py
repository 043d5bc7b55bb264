"""The Pods' network: one bridge with the node's address, forwarding, and masquerading of what leaves the machine."""

from __future__ import annotations

import ipaddress
import json
from pathlib import Path

from e2e.cluster.components.control_plane import NODE_ADDRESS
from e2e.cluster.machine.commands import ask, run
from e2e.steps import StepFailed

BRIDGE = "finetune0"
POD_RANGE = "10.244.0.0/24"
NETWORK = "finetune-operator"
TABLE = ("ip", "finetune-operator")
PROXY_TABLES = (("ip", "kube-proxy"), ("ip6", "kube-proxy"))

MASQUERADE = f"""
table {" ".join(TABLE)} {{
  chain postrouting {{
    type nat hook postrouting priority srcnat; policy accept;
    ip saddr {POD_RANGE} ip daddr != {POD_RANGE} masquerade
  }}
}}
"""


def create_network() -> None:
    """Make the bridge and the rules. Forwarding itself is a sysctl (sysctls.py)."""
    _refuse_overlap()
    run("ip", "link", "add", BRIDGE, "type", "bridge")
    run("ip", "address", "add", f"{NODE_ADDRESS}/{POD_RANGE.split('/')[1]}", "dev", BRIDGE)
    run("ip", "link", "set", BRIDGE, "up")
    run("nft", "-f", "-", input=MASQUERADE)


def remove_network() -> None:
    """Remove the bridge, the Pods' interfaces on it, and all nftables rules of the cluster."""
    for interface in _links():
        if interface.get("master") == BRIDGE or interface["ifname"] == BRIDGE:
            ask("ip", "link", "delete", interface["ifname"])
    for family, table in (TABLE, *PROXY_TABLES):
        ask("nft", "delete", "table", family, table)


def cni_config(addresses: Path) -> str:
    """The CNI configuration of a Pod's interface; `addresses` is the directory that records which are taken.

    No masquerading by the plugin: that would take iptables and one chain for each Pod.
    """
    ipam = {
        "type": "host-local",
        "dataDir": str(addresses),
        "ranges": [[{"subnet": POD_RANGE}]],
        "routes": [{"dst": "0.0.0.0/0"}],
    }
    bridge = {"type": "bridge", "bridge": BRIDGE, "isGateway": True, "hairpinMode": True, "ipam": ipam}
    return json.dumps({"cniVersion": "0.4.0", "name": NETWORK, "plugins": [bridge]}, indent=2)


def _links() -> list[dict[str, str]]:
    listed: list[dict[str, str]] = json.loads(run("ip", "-json", "link", "show"))
    return listed


def _refuse_overlap() -> None:
    ours = ipaddress.ip_network(POD_RANGE)
    for interface in json.loads(run("ip", "-json", "-4", "address", "show")):
        for one in interface["addr_info"]:
            theirs = ipaddress.ip_network(f"{one['local']}/{one['prefixlen']}", strict=False)
            if theirs.overlaps(ours):
                raise StepFailed(
                    f"Interface {interface['ifname']} has {theirs}, which overlaps the Pods' network {ours}. "
                    "What to do: stop what uses it (another local Kubernetes?), or set CLUSTER=existing."
                )
