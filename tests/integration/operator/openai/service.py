"""OpenAI's API as a process of its own, with the rights that the chart gives it, in front of a real S3."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import openai
import yaml

from e2e.cluster.binaries import binaries
from e2e.cluster.components.control_plane import ControlPlane
from e2e.cluster.machine.children import with_parent
from e2e.cluster.machine.commands import run
from e2e.cluster.machine.ports import free_ports
from e2e.s3 import S3
from tests.integration.operator.api import Api, Object

ROOT = Path(__file__).parents[4]
BUCKET = "models"
START_SECONDS = 60.0
AUDIENCE = "finetune.dev/openai"
GROUPS = {
    "ServiceAccount": "/api/v1/namespaces/{}/serviceaccounts",
    "Role": "/apis/rbac.authorization.k8s.io/v1/namespaces/{}/roles",
    "RoleBinding": "/apis/rbac.authorization.k8s.io/v1/namespaces/{}/rolebindings",
    "ClusterRole": "/apis/rbac.authorization.k8s.io/v1/clusterroles",
    "ClusterRoleBinding": "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
}


@dataclass
class Service:
    """The API of one namespace."""

    plane: ControlPlane
    api: Api
    class_name: str
    s3: S3
    folder: Path
    port: int = field(default_factory=lambda: free_ports(1)[0])
    _process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def grant(self) -> None:
        """Make the accounts and roles that the chart makes, and nothing else of it."""
        values = {"name": self.api.namespace, "className": self.class_name, "credentialsSecretName": "s3"}
        file = self.folder / "values.yaml"
        # The name of the ClusterRole is the release's; each namespace of the tests has a release of its own.
        content = {"fullnameOverride": self.api.namespace, "openai": {"namespaces": [values]}}
        file.write_text(yaml.safe_dump(content))
        chart = ROOT / "charts" / "finetune-operator"
        rendered = run(binaries(["helm"])["helm"], "template", "x", chart, "-f", file, "-s", "templates/openai.yaml")
        for item in yaml.safe_load_all(rendered):
            if item["kind"] in GROUPS:
                self.api.request("POST", GROUPS[item["kind"]].format(self.api.namespace), item)

    def start(self) -> None:
        """Start it as its ServiceAccount, and wait until it answers."""
        credentials = self.folder / "credentials"
        credentials.mkdir(exist_ok=True)
        (credentials / "AWS_ACCESS_KEY_ID").write_text(self.s3.access_key)
        (credentials / "AWS_SECRET_ACCESS_KEY").write_text(self.s3.secret_key)
        self.keys.mkdir(exist_ok=True)
        namespace = self.api.namespace
        account = f"system:serviceaccount:{namespace}:{namespace}-openai"
        groups = ["system:serviceaccounts", f"system:serviceaccounts:{namespace}"]
        flags = {
            "namespace": namespace,
            "class-name": self.class_name,
            "port": self.port,
            "credentials": credentials,
            "api-keys": self.keys,
            "kubeconfig": self.plane.kubeconfig_for(account, groups),
        }
        command = [sys.executable, "-m", "finetune_openai", *(f"--{name}={value}" for name, value in flags.items())]
        with self.log.open("ab") as output:
            self._process = subprocess.Popen(
                with_parent(command),
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, "PYTHONPATH": str(ROOT / "operator" / "src")},
            )
        deadline = time.monotonic() + START_SECONDS
        while not self._answers():
            assert self._process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.1)

    def kill(self) -> None:
        """SIGKILL."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)

    @property
    def log(self) -> Path:
        return self.folder / "openai.log"

    @property
    def keys(self) -> Path:
        """What stands for the mounted Secret with the digests of API keys."""
        return self.folder / "keys"

    def token(self, account: str, api: Api | None = None, audience: str = AUDIENCE) -> str:
        """A ServiceAccount's token."""
        path = (api or self.api).path("ServiceAccount", account) + "/token"
        answer: Object = self.api.request("POST", path, {"spec": {"audiences": [audience]}})
        return str(answer["status"]["token"])

    def client(self, token: str, **options: Any) -> openai.OpenAI:
        """OpenAI's own client: a script's two changed lines."""
        return openai.OpenAI(base_url=f"{self.url}/v1", api_key=token, **options)

    def stored(self) -> list[str]:
        """The keys of everything that the API holds in the storage."""
        found = self.s3.client().list_objects_v2(Bucket=BUCKET, Prefix=f"finetune/{self.api.namespace}/FILES/")
        return [item["Key"] for item in found.get("Contents", [])]

    def uploads(self) -> list[str]:
        """The multipart uploads that are open."""
        found = self.s3.client().list_multipart_uploads(Bucket=BUCKET, Prefix=f"finetune/{self.api.namespace}/FILES/")
        return [item["Key"] for item in found.get("Uploads", [])]

    def _answers(self) -> bool:
        try:
            return httpx2.get(f"{self.url}/healthz", timeout=2).is_success
        except httpx2.HTTPError:
            return False


def account(api: Api, name: str, verbs: list[str]) -> None:
    """A ServiceAccount that may do this to FineTuneJobs of its namespace."""
    meta = {"name": name, "namespace": api.namespace}
    api.request("POST", api.path("ServiceAccount"), {"metadata": meta})
    rules = [{"apiGroups": ["finetune.dev"], "resources": ["finetunejobs"], "verbs": verbs}]
    api.request("POST", GROUPS["Role"].format(api.namespace), {"metadata": meta, "rules": rules})
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name}
    subjects = [{"kind": "ServiceAccount", **meta}]
    binding = {"metadata": meta, "roleRef": role, "subjects": subjects}
    api.request("POST", GROUPS["RoleBinding"].format(api.namespace), binding)
