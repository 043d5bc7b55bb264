"""A certificate for both webhook servers, with the names that Kubeflow Trainer's own rotation looks for.

Where they are there and valid for 90 more days, it makes none of its own, which would not name this machine.
"""

from __future__ import annotations

import datetime
import ipaddress
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

AUTHORITY = "kubeflow-trainer-ca"
SERVER = "kubeflow-trainer-controller-manager.kubeflow-system.svc"
VALID_DAYS = 365


def make(folder: Path) -> dict[str, str]:
    """A new authority and a server's certificate as PEM, by the keys of a Secret; the server's are in `folder`."""
    authority, server = (rsa.generate_private_key(public_exponent=65537, key_size=2048) for _ in range(2))
    ca = _builder(AUTHORITY, authority.public_key(), [x509.DNSName(AUTHORITY)]).add_extension(
        x509.BasicConstraints(ca=True, path_length=None), critical=True
    )
    names: list[x509.GeneralName] = [x509.DNSName(SERVER), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    issued = _builder(SERVER, server.public_key(), names).sign(authority, hashes.SHA256())
    made = {
        "ca.crt": _certificate(ca.sign(authority, hashes.SHA256())),
        "ca.key": _key(authority),
        "tls.crt": _certificate(issued),
        "tls.key": _key(server),
    }
    folder.mkdir(parents=True)
    for name in ("tls.crt", "tls.key"):
        (folder / name).write_text(made[name])
    return made


def _builder(subject: str, key: rsa.RSAPublicKey, names: list[x509.GeneralName]) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(_name(subject))
        .issuer_name(_name(AUTHORITY))
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=5))
        .not_valid_after(now + datetime.timedelta(days=VALID_DAYS))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
    )


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _certificate(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def _key(key: rsa.RSAPrivateKey) -> str:
    """In PKCS 1, the only form that cert-controller reads."""
    form = serialization.PrivateFormat.TraditionalOpenSSL
    return key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()).decode()
