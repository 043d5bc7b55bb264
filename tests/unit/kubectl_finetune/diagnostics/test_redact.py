"""What leaves the namespace in a zip has no secret, and still tells what is wrong."""

from __future__ import annotations

import json
import time

import pytest

from kubectl_finetune.diagnostics.redact import redacted, redacted_text

JWT = "eyJhbGciOiJSUzI1NiIsImtpZCI6IjEifQ.eyJpc3MiOiJrdWJlcm5ldGVzIn0.c2lnbmF0dXJlLW9mLXRoZS10b2tlbg"
SECRETS = (
    (f"Authorization: Bearer {JWT}", JWT[:30]),
    (f"token is {JWT}", JWT[:30]),
    ("hf_AbCdEfGhIjKlMnOpQrStUvWx", "hf_AbCd"),
    ("OPENAI_API_KEY=sk-proj-1234567890abcdefgh", "1234567890"),
    ("AWS_SECRET_ACCESS_KEY=wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", "wJalrX"),
    ("aws_access_key_id = AKIAIOSFODNN7EXAMPLE", "AKIAIOS"),
    ("{'password': 'correct horse'}", "correct"),
    ('"secret_key": "abcdefgh"', "abcdefgh"),
    ("https://user:hunter22@proxy.example:3128/", "hunter22"),
    ("GET https://s3.example/b/k?X-Amz-Credential=AKIA&X-Amz-Signature=0123abcd HTTP/1.1", "0123abcd"),
    ("https://account.blob.example/c/b?sv=2024&sig=Zm9vYmFy", "Zm9vYmFy"),
    ("curl -H 'authorization: Basic dXNlcjpwYXNzd29yZA=='", "dXNlcjpw"),
    ("ghp_0123456789abcdefghij0123456789abcdef", "0123456789"),
    ("-----BEGIN RSA PRIVATE KEY-----\nMIIEow\n-----END RSA PRIVATE KEY-----\nafter", "MIIEow"),
    ("-----BEGIN PRIVATE KEY-----\nMIIEow of a log that was cut", "MIIEow"),
)


@pytest.mark.parametrize(("text", "secret"), SECRETS, ids=[secret for _, secret in SECRETS])
def test_secrets_are_removed_from_texts_and_from_anywhere_in_an_object(text: str, secret: str) -> None:
    assert secret in text
    assert secret not in redacted_text(text)
    assert secret not in json.dumps(redacted({"a": [{"message": f"before {text} after"}]}))
    assert "before" in redacted_text(f"before {text}")


@pytest.mark.parametrize(
    "text",
    [
        "s3://models/base: the storage rejected the credentials (403). Check the Secret s3-credentials.",
        "SecretNotFound: the Secret s3-credentials does not exist in team-a.",
        "line 7: the last message is not the assistant's. 90,000 tokens, max_tokens=256, trained_tokens: 12345",
        "https://s3.example/bucket/key: connection refused",
        '{"level": "info", "tokens_per_second": 123.4, "event": "Step 10/300: training loss=0.22"}',
        "digest sha256:3b1f0c9d8e7a6b5c4d3e2f1a0b9c8d7e6f5a4b3c2d1e0f9a8b7c6d5e4f3a2b1c",
        "image registry.example/trainer@sha256:3b1f0c9d8e7a6b5c4d3e2f1a0b9c8d7e6f5a4b3c2d1e0f9a",
    ],
)
def test_what_tells_the_cause_stays(text: str) -> None:
    assert redacted_text(text) == text


def test_environment_variables_keep_their_names_and_lose_their_values() -> None:
    reference = {"secretKeyRef": {"name": "s3", "key": "AWS_SECRET_ACCESS_KEY"}}
    container = {"env": [{"name": "ANYTHING", "value": "xyzzy"}, {"name": "KEY", "valueFrom": reference}]}
    found = redacted({"spec": {"containers": [container]}})
    assert found["spec"]["containers"][0]["env"] == [
        {"name": "ANYTHING", "value": "REDACTED"},
        {"name": "KEY", "valueFrom": reference},
    ]


def test_members_named_as_secrets_are_lose_their_values_and_names_of_secrets_stay() -> None:
    found = redacted(
        {"apiKey": "abc", "sessionToken": "abc", "db-password": "abc", "credentialsSecretName": "s3", "tokens": 7}
    )
    assert found == {
        **dict.fromkeys(("apiKey", "sessionToken", "db-password"), "REDACTED"),
        "credentialsSecretName": "s3",
        "tokens": 7,
    }


def test_copies_of_the_object_are_dropped() -> None:
    annotations = {"kubectl.kubernetes.io/last-applied-configuration": "{}", "team": "a"}
    metadata = {"name": "router", "managedFields": [{}], "annotations": annotations}
    assert redacted({"metadata": metadata}) == {"metadata": {"name": "router", "annotations": {"team": "a"}}}


@pytest.mark.parametrize("piece", ["a", "a-", "eyJa", "http://", "token", "x=", "key ", "-----BEGIN PRIVATE KEY-----"])
def test_a_log_of_one_long_line_takes_no_time(piece: str) -> None:
    """Repetitions without a bound take minutes for this; CPU time, so that other work does not count."""
    text = piece * (300_000 // len(piece))
    began = time.process_time()
    redacted_text(text)
    assert time.process_time() - began < 10
