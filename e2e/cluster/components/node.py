"""The node of the local cluster: kubelet and kube-proxy on this machine."""

from __future__ import annotations

import json
from pathlib import Path

import yaml

from e2e.cluster.binaries import NODE, binaries
from e2e.cluster.components.container_runtime import SOCKET
from e2e.cluster.components.control_plane import NODE_ADDRESS, ControlPlane
from e2e.cluster.components.dns import DOMAIN
from e2e.cluster.components.network import POD_RANGE
from e2e.cluster.machine import cgroups, processes
from e2e.cluster.machine.ports import free_ports

NODE_NAME = "finetune-node"
READY_SECONDS = 90.0


def start_node(plane: ControlPlane) -> None:
    """Start kubelet and kube-proxy."""
    commands = binaries(NODE)
    home = plane.home
    group = f"system:node:{NODE_NAME}"
    kubelet_access = plane.authority.kubeconfig(home / "kubelet.kubeconfig", plane.server, group, ["system:nodes"])
    processes.start(
        home,
        "kubelet",
        [
            commands["kubelet"],
            f"--config={_write(home / 'kubelet.yaml', _kubelet(plane))}",
            f"--kubeconfig={kubelet_access}",
            f"--root-dir={home / 'kubelet'}",
            f"--hostname-override={NODE_NAME}",
            f"--node-ip={NODE_ADDRESS}",
        ],
    )
    proxy_access = plane.authority.kubeconfig(home / "kube-proxy.kubeconfig", plane.server, "system:kube-proxy")
    config = _write(home / "kube-proxy.yaml", _proxy(proxy_access))
    processes.start(home, "kube-proxy", [commands["kube-proxy"], f"--config={config}"])


def wait_for_node(plane: ControlPlane) -> None:
    """Return when the node is Ready."""
    processes.wait_until(
        lambda: is_ready(plane),
        "The node's Ready condition",
        home=plane.home,
        needs=["kube-proxy", "coredns", "containerd", "kubelet"],
        timeout=READY_SECONDS,
    )


def is_ready(plane: ControlPlane) -> bool:
    """Whether the API server says that the node is Ready."""
    answer = plane.get(f"/api/v1/nodes/{NODE_NAME}")
    if answer is None:
        return False
    conditions = json.loads(answer)["status"].get("conditions", [])
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)


def _kubelet(plane: ControlPlane) -> dict[str, object]:
    """See https://kubernetes.io/docs/reference/config-api/kubelet-config.v1beta1/"""
    serving = plane.authority.issue("kubelet", NODE_NAME, hosts=[NODE_ADDRESS, NODE_NAME])
    resolver = plane.home / "resolv.conf"
    resolver.write_text(f"nameserver {NODE_ADDRESS}\n")
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": NODE_ADDRESS,
        "port": free_ports(1)[0],
        "healthzPort": 0,
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(plane.authority.certificate)},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": str(serving.certificate),
        "tlsPrivateKeyFile": str(serving.key),
        "containerRuntimeEndpoint": f"unix://{SOCKET}",
        "clusterDNS": [NODE_ADDRESS],
        "clusterDomain": DOMAIN,
        "resolvConf": str(resolver),
        "podLogsDir": str(plane.home / "pod-logs"),
        "volumePluginDir": str(plane.home / "volume-plugins"),
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{cgroups.NAME}",
        "failCgroupV1": False,
        "failSwapOn": False,
        "makeIPTablesUtilChains": False,
        "serializeImagePulls": False,
        # Images are wanted again by the next cluster, but each change of the trainer's packages is another one of
        # gigabytes. Only a disk that is all but full makes Pods go.
        "imageMaximumGCAge": "24h",
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
        "evictionHard": {"memory.available": "100Mi", "nodefs.available": "1Gi", "imagefs.available": "1Gi"},
        "nodeStatusUpdateFrequency": "5s",
    }


def _proxy(access: Path) -> dict[str, object]:
    """See https://kubernetes.io/docs/reference/config-api/kube-proxy-config.v1alpha1/"""
    health, metrics = free_ports(2)
    return {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "nftables",
        "clientConnection": {"kubeconfig": str(access)},
        "hostnameOverride": NODE_NAME,
        "clusterCIDR": POD_RANGE,
        # Two Pods on one bridge would answer each other directly, past the translation of a Service's address.
        "nftables": {"masqueradeAll": True, "minSyncPeriod": "0s"},
        "conntrack": {"maxPerCore": 0, "min": 0},
        "healthzBindAddress": f"127.0.0.1:{health}",
        "metricsBindAddress": f"127.0.0.1:{metrics}",
    }


def _write(path: Path, content: dict[str, object]) -> Path:
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path
