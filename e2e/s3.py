"""S3 storage: SeaweedFS in a cluster for demos and end-to-end tests, and as a process for integration tests."""

from __future__ import annotations

import base64
import contextlib
import functools
import json
import secrets
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import yaml
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from e2e.cluster.binaries import binaries
from e2e.cluster.lifetime import temporary_home
from e2e.cluster.machine import processes
from e2e.cluster.machine.commands import ask, run
from e2e.cluster.machine.ports import free_ports
from e2e.cluster.resolve import Cluster
from e2e.cluster.service_url import service_url
from e2e.images.build import Images

NAMESPACE = "finetune-storage"
SERVICE = "s3"
SECRET = "s3-root"  # noqa: S105 (its name)
PORT = 8333
REGION = "us-east-1"
PROCESS = "weed"
MANIFEST = Path(__file__).parent / "seaweedfs" / "s3.yaml"

ROLLOUT_SECONDS = 180
READY_SECONDS = 30.0


@dataclass(frozen=True)
class S3:
    """S3 storage that this process can reach. Bucket names have three characters or more."""

    endpoint: str
    access_key: str
    secret_key: str

    def client(self) -> Any:
        """A boto3 client for it."""
        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
            region_name=REGION,
            config=Config(s3={"addressing_style": "path"}, connect_timeout=5, read_timeout=60),
        )

    def environment(self) -> dict[str, str]:
        """What makes any other S3 client use it."""
        return {
            "AWS_ENDPOINT_URL_S3": self.endpoint,
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_DEFAULT_REGION": REGION,
        }

    def create_bucket(self, bucket: str) -> None:
        """Make a bucket; one of ours that is there stays as it is."""
        client = self.client()
        with contextlib.suppress(client.exceptions.BucketAlreadyExists, client.exceptions.BucketAlreadyOwnedByYou):
            client.create_bucket(Bucket=bucket)

    def upload(self, file: Path, bucket: str, key: str) -> None:
        """Put a file's content under a key."""
        self.client().upload_file(str(file), bucket, key)

    def put(self, bucket: str, key: str, content: bytes) -> None:
        self.client().put_object(Bucket=bucket, Key=key, Body=content)

    def delete(self, bucket: str, key: str) -> None:
        """Remove an object; none is no error."""
        self.client().delete_object(Bucket=bucket, Key=key)


@dataclass(frozen=True)
class ClusterStorage:
    """S3 storage in a cluster. `endpoint` is its address for Pods."""

    kubeconfig: Path
    endpoint: str
    access_key: str
    secret_key: str


def deploy(cluster: Cluster, images: Images) -> ClusterStorage:
    """Run the storage in the cluster and wait until it is ready; one that runs stays as it is. Raises StepFailed."""
    kubectl = [str(binaries(["kubectl"])["kubectl"]), "--kubeconfig", str(cluster.kubeconfig)]
    run(*kubectl, "apply", "-f", "-", input=json.dumps(_namespace()))
    found = ask(*kubectl, "--namespace", NAMESPACE, "get", "secret", SECRET, "--output=json")
    if found is None:
        run(*kubectl, "create", "-f", "-", input=json.dumps(_credentials()))
        found = run(*kubectl, "--namespace", NAMESPACE, "get", "secret", SECRET, "--output=json")
    keys = {key: base64.b64decode(value).decode() for key, value in json.loads(found)["data"].items()}
    documents = manifests(MANIFEST.read_text(), images.storage)
    run(*kubectl, "--namespace", NAMESPACE, "apply", "-f", "-", input=yaml.safe_dump_all(documents))
    wait = ["rollout", "status", f"deployment/{SERVICE}", f"--timeout={ROLLOUT_SECONDS}s"]
    run(*kubectl, "--namespace", NAMESPACE, *wait, timeout=ROLLOUT_SECONDS + 10)
    endpoint = f"http://{SERVICE}.{NAMESPACE}.svc.cluster.local:{PORT}"
    return ClusterStorage(cluster.kubeconfig, endpoint, keys["AWS_ACCESS_KEY_ID"], keys["AWS_SECRET_ACCESS_KEY"])


@contextlib.contextmanager
def reach(storage: ClusterStorage) -> Iterator[S3]:
    """The storage in the cluster as this machine reaches it, as long as the context lasts. Raises StepFailed."""
    with service_url(storage.kubeconfig, NAMESPACE, SERVICE, PORT) as endpoint:
        yield S3(endpoint, storage.access_key, storage.secret_key)


def manifests(text: str, image: str) -> list[dict[str, Any]]:
    """The documents of s3.yaml with the image that they leave open."""
    documents: list[dict[str, Any]] = list(yaml.safe_load_all(text))
    for document in documents:
        if document["kind"] == "Deployment":
            document["spec"]["template"]["spec"]["containers"][0]["image"] = image
    return documents


@contextlib.contextmanager
def local_s3() -> Iterator[S3]:
    """S3 storage of a process on this machine: empty, on free ports, and gone with all its data after the context.

    That is also so where this process is killed. Raises StepFailed with the end of its log where it ends by itself or
    is not ready within READY_SECONDS.
    """
    with temporary_home("s3") as home:
        options, port = _ports()
        storage = S3(f"http://127.0.0.1:{port}", secrets.token_hex(10), secrets.token_hex(20))
        # It would put its sockets into /tmp, and leave them there. Their names are relative, as they must be short.
        options += ["-s3.localSocket=s3.sock", "-filer.localSocket=filer.sock"]
        command: list[str | Path] = [_weed(), *weed_arguments(home / "data"), *options]
        places = {"HOME": str(home), "TMPDIR": str(home)}
        processes.start(home, PROCESS, command, env={**storage.environment(), **places}, cwd=home)
        ready = functools.partial(_answers, storage.client())
        processes.wait_until(ready, "The S3 storage", home=home, needs=[PROCESS], timeout=READY_SECONDS)
        yield storage


def weed_arguments(data: Path) -> list[str]:
    """`weed mini` with S3 and what that needs, and no word to anybody outside."""
    data.mkdir()
    quiet = [
        "-master.telemetry=false",
        "-webdav=false",
        "-admin.ui=false",
        "-s3.autoCreateBucket=false",
        "-volume.preStopSeconds=0",
    ]
    return ["mini", f"-dir={data}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", *quiet]


def _ports() -> tuple[list[str], int]:
    """Options that put each part of SeaweedFS on a free port, and S3's port."""
    parts = ("s3", "master", "volume", "filer", "admin")
    ports = free_ports(2 * len(parts))
    pairs = zip(parts, ports[::2], ports[1::2], strict=True)
    options = [word for part, http, grpc in pairs for word in (f"-{part}.port={http}", f"-{part}.port.grpc={grpc}")]
    return [*options, "-s3.port.iceberg=0", "-s3.port.lance=0"], ports[0]


def _weed() -> Path:
    """SeaweedFS's program, which its Python package puts beside this Python."""
    return Path(sysconfig.get_path("scripts")) / "weed"


def _answers(client: Any) -> bool:
    try:
        client.list_buckets()
    except (BotoCoreError, ClientError):
        return False
    return True


def _namespace() -> dict[str, Any]:
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE, "labels": labels}}


def _credentials() -> dict[str, Any]:
    """A Secret with credentials that nobody has had before."""
    keys = {"AWS_ACCESS_KEY_ID": secrets.token_hex(10), "AWS_SECRET_ACCESS_KEY": secrets.token_hex(20)}
    metadata = {"name": SECRET, "namespace": NAMESPACE}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": keys}
