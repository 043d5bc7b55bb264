"""A control plane: etcd, kube-apiserver, kube-controller-manager, kube-scheduler.

`control_plane()` gives tests one of their own, without root and any number side by side; the local cluster is one
such control plane with a node (node.py). It has everything of Kubernetes but containers: real CRDs, admission, CEL,
server-side apply, RBAC, the Job controller, garbage collection, namespace deletion.
"""

from __future__ import annotations

import contextlib
import ssl
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from e2e.cluster.binaries import CONTROL_PLANE, binaries
from e2e.cluster.components.certificates import Authority, Issued, signing_keys
from e2e.cluster.lifetime import temporary_home
from e2e.cluster.machine import processes
from e2e.cluster.machine.ports import free_ports
from e2e.steps import step

SERVICE_RANGE = "10.96.0.0/16"
API_SERVICE_ADDRESS = "10.96.0.1"
NODE_ADDRESS = "10.244.0.1"
"""Of the bridge that Pods are plugged into (network.py), and so of the node and of the API server: it exists only
inside this machine, and Pods reach it without any other network."""

PROCESSES = ("kube-scheduler", "kube-controller-manager", "kube-apiserver", "etcd")
"""In the order in which they are stopped."""

START_SECONDS = 60.0
SELDOM_COLLECTED = {"GOGC": "400", "GOMEMLIMIT": "800MiB"}
"""For Go's runtime: a fifth of an API server's CPU time is its garbage collector's. Under the limit there is memory."""


@dataclass(frozen=True)
class ControlPlane:
    """A running control plane. `kubeconfig` is its administrator's; `home` holds all its files."""

    home: Path
    server: str
    kubeconfig: Path

    @property
    def authority(self) -> Authority:
        return Authority(self.home / "pki")

    def get(self, path: str) -> bytes | None:
        """The API server's answer to the administrator's GET; None when there is none, or an error."""
        pki = self.home / "pki"
        tls = ssl.create_default_context(cafile=str(pki / "ca.crt"))
        tls.load_cert_chain(pki / "kubeconfig.crt", pki / "kubeconfig.key")
        try:
            with urllib.request.urlopen(f"{self.server}{path}", context=tls, timeout=5) as answer:
                content: bytes = answer.read()
                return content
        except OSError:
            return None

    def kubeconfig_for(self, user: str, groups: Sequence[str] = ()) -> Path:
        """A kubeconfig for another user, who may do what RBAC allows that name and those groups.

        For a service account: user `system:serviceaccount:NAMESPACE:NAME`, groups `system:serviceaccounts` and
        `system:serviceaccounts:NAMESPACE`.
        """
        path = self.home / "kubeconfigs" / f"{user.replace(':', '-')}.yaml"
        path.parent.mkdir(exist_ok=True)
        return self.authority.kubeconfig(path, self.server, user, groups)


@contextlib.contextmanager
def control_plane(flags: Mapping[str, Sequence[str]] = MappingProxyType({})) -> Iterator[ControlPlane]:
    """A new, empty control plane on free ports of 127.0.0.1, gone with all its files at the end, also at a
    sudden end of this process.

    `flags` are added to those of the process (one of PROCESSES) that they are given for.
    """
    binaries(CONTROL_PLANE)
    with temporary_home("control-plane") as home:
        yield start(home, "127.0.0.1", flags)


def start(home: Path, address: str, flags: Mapping[str, Sequence[str]] = MappingProxyType({})) -> ControlPlane:
    """Start a control plane with all its files in the new directory `home`, listening on `address`.

    Returns when a Pod can be made: the API server answers and the service account `default` exists.
    """
    commands = binaries(CONTROL_PLANE)
    etcd_port, peer_port, api_port = free_ports(3)
    server = f"https://{address}:{api_port}"
    authority = Authority(home / "pki")
    hosts = ["localhost", "127.0.0.1", API_SERVICE_ADDRESS, address]
    hosts += [
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        "kubernetes.default.svc.cluster.local",
    ]
    serving = authority.issue("serving", "kube-apiserver", hosts=hosts)
    admin = authority.kubeconfig(home / "kubeconfig", server, "admin", ["system:masters"])
    plane = ControlPlane(home, server, admin)
    with step("Start the control plane"):
        etcd = [f"https://{address}:{port}" for port in (etcd_port, peer_port)]
        arguments = [*_etcd(home, authority, serving, *etcd), *flags.get("etcd", ())]
        processes.start(home, "etcd", [commands["etcd"], *arguments], env=SELDOM_COLLECTED)
        accounts = signing_keys(authority.directory, "service-accounts")
        arguments = _apiserver(authority, serving, accounts, etcd[0], address, api_port)
        arguments += flags.get("kube-apiserver", ())
        processes.start(home, "kube-apiserver", [commands["kube-apiserver"], *arguments], env=SELDOM_COLLECTED)

        def answers(path: str) -> bool:
            return plane.get(path) is not None

        up = ["etcd", "kube-apiserver"]
        processes.wait_until(lambda: answers("/readyz"), "The API server", home=home, needs=up, timeout=START_SECONDS)
        for name, arguments in (
            ("kube-controller-manager", _controller_manager(home, authority, accounts)),
            ("kube-scheduler", []),
        ):
            config = authority.kubeconfig(home / f"{name}.yaml", server, f"system:{name}")
            common = [f"--kubeconfig={config}", "--leader-elect=false", "--secure-port=0"]
            command: list[str | Path] = [commands[name], *common, *arguments, *flags.get(name, ())]
            processes.start(home, name, command, env=SELDOM_COLLECTED)
        processes.wait_until(
            lambda: answers("/api/v1/namespaces/default/serviceaccounts/default"),
            "The default service account",
            home=home,
            needs=[*up, "kube-scheduler", "kube-controller-manager"],
            timeout=START_SECONDS,
        )
    return plane


def is_healthy(plane: ControlPlane) -> bool:
    """Whether all its processes are alive and the API server is ready."""
    return all(processes.is_running(plane.home, name) for name in PROCESSES) and plane.get("/readyz") is not None


def _etcd(home: Path, authority: Authority, serving: Issued, client: str, peer: str) -> list[str]:
    files = (
        ("cert-file", serving.certificate),
        ("key-file", serving.key),
        ("trusted-ca-file", authority.certificate),
    )
    return [
        f"--data-dir={home / 'etcd'}",
        f"--listen-client-urls={client}",
        f"--advertise-client-urls={client}",
        f"--listen-peer-urls={peer}",
        f"--initial-advertise-peer-urls={peer}",
        f"--initial-cluster=default={peer}",
        "--client-cert-auth",
        "--peer-client-cert-auth",
        *(f"--{kind}{name}={file}" for kind in ("", "peer-") for name, file in files),
        "--unsafe-no-fsync",
        "--log-level=warn",
    ]


def _apiserver(
    authority: Authority, serving: Issued, accounts: Issued, etcd: str, address: str, port: int
) -> list[str]:
    kubelet = authority.issue("kubelet-client", "kube-apiserver-kubelet-client", groups=["system:masters"])
    return [
        f"--bind-address={address}",
        f"--secure-port={port}",
        # What Pods' connections to the Service `kubernetes` are sent to; it may not be a loopback address.
        f"--advertise-address={NODE_ADDRESS}",
        f"--tls-cert-file={serving.certificate}",
        f"--tls-private-key-file={serving.key}",
        f"--client-ca-file={authority.certificate}",
        f"--etcd-servers={etcd}",
        f"--etcd-cafile={authority.certificate}",
        f"--etcd-certfile={serving.certificate}",
        f"--etcd-keyfile={serving.key}",
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
        "--allow-privileged=true",
        f"--service-cluster-ip-range={SERVICE_RANGE}",
        "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
        f"--service-account-key-file={accounts.certificate}",
        f"--service-account-signing-key-file={accounts.key}",
        f"--kubelet-certificate-authority={authority.certificate}",
        f"--kubelet-client-certificate={kubelet.certificate}",
        f"--kubelet-client-key={kubelet.key}",
        "--kubelet-preferred-address-types=InternalIP",
        "--profiling=false",
    ]


def _controller_manager(home: Path, authority: Authority, accounts: Issued) -> list[str]:
    return [
        f"--flex-volume-plugin-dir={home / 'volume-plugins'}",
        f"--service-account-private-key-file={accounts.key}",
        f"--root-ca-file={authority.certificate}",
        "--use-service-account-credentials",
        # It makes one account for each controller at its start; at the default 20 requests a second that takes 5 s.
        "--kube-api-qps=500",
        "--kube-api-burst=1000",
    ]
