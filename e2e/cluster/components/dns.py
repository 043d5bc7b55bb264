"""The cluster's DNS: CoreDNS as a process on the node's address."""

from __future__ import annotations

import urllib.request
from pathlib import Path

from e2e.cluster.binaries import binaries
from e2e.cluster.components.control_plane import NODE_ADDRESS, ControlPlane
from e2e.cluster.machine import processes
from e2e.cluster.machine.commands import run
from e2e.cluster.machine.ports import free_ports

PROCESS = "coredns"
USER = "coredns"
DOMAIN = "cluster.local"
READY_SECONDS = 30.0
UPSTREAM = Path("/etc/resolv.conf")

COREFILE = """
.:53 {{
    bind {address}
    ready 127.0.0.1:{ready}
    errors
    kubernetes {domain} in-addr.arpa {{
        kubeconfig {kubeconfig}
        pods insecure
        fallthrough in-addr.arpa
    }}
    {forward}
}}
"""

# What CoreDNS's kubernetes plugin reads (https://coredns.io/plugins/kubernetes/).
ACCESS = f"""
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {{name: local-coredns}}
rules:
- {{apiGroups: [""], resources: [services, pods, namespaces], verbs: [list, watch]}}
- {{apiGroups: [discovery.k8s.io], resources: [endpointslices], verbs: [list, watch]}}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {{name: local-coredns}}
roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: local-coredns}}
subjects:
- {{apiGroup: rbac.authorization.k8s.io, kind: User, name: {USER}}}
"""


def start_dns(plane: ControlPlane) -> None:
    """Start CoreDNS and return when it answers; names outside the cluster go to the machine's own name servers."""
    kubectl = binaries(["kubectl"])["kubectl"]
    run(kubectl, "--kubeconfig", plane.kubeconfig, "apply", "--server-side", "-f", "-", input=ACCESS)
    has_upstream = UPSTREAM.exists() and any(
        line.startswith("nameserver") for line in UPSTREAM.read_text().splitlines()
    )
    port = free_ports(1)[0]
    config = plane.home / "Corefile"
    config.write_text(
        COREFILE.format(
            address=NODE_ADDRESS,
            ready=port,
            domain=DOMAIN,
            kubeconfig=plane.kubeconfig_for(USER),
            forward=f"forward . {UPSTREAM}" if has_upstream else "",
        )
    )
    processes.start(plane.home, PROCESS, [binaries([PROCESS])[PROCESS], "-conf", config])
    processes.wait_until(
        lambda: _is_ready(port), "CoreDNS's readiness", home=plane.home, needs=[PROCESS], timeout=READY_SECONDS
    )


def _is_ready(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/ready", timeout=2):
            return True
    except OSError:
        return False
