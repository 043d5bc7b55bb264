"""Removes what must not leave the namespace from what `diagnose` collects: pure.

It errs on the side of removing. What it can't know are secrets in the words of a dataset or of a person's own log lines
without any name beside them.
"""

from __future__ import annotations

import re
from typing import Any

from finetune_api.pod_contracts.run import RUN_ANNOTATIONS

REDACTED = "REDACTED"
_DROPPED = frozenset({"managedFields", "kubectl.kubernetes.io/last-applied-configuration", *RUN_ANNOTATIONS.values()})
"""They repeat the object, or the run configuration, as an opaque text."""

_NAMED = (
    r"(?:pass(?:word|wd|phrase)?|pwd|secret|token|api[-_ ]?key|access[-_ ]?key(?:[-_ ]?id)?|secret[-_ ]?key|"
    r"private[-_ ]?key|signature)"
)
_SECRET_MEMBER = re.compile(rf"[-_.A-Za-z0-9]*(?:{_NAMED}|credentials?|authorization|cookie)", re.IGNORECASE)
# Each pattern's first group stays. Repetitions are bounded: a log may be one line of a megabyte.
_PATTERNS = (
    re.compile(r"(-----BEGIN [A-Z ]{0,30}PRIVATE KEY-----).*?(?:-----END[^\n]{0,60}|\Z)", re.DOTALL),
    re.compile(r"(https?://)[^\s/@\"']{1,256}@"),  # user and password
    re.compile(r"(\b[a-z][a-z0-9+.-]{1,20}://[^\s?\"'<>]{0,2048}\?)[^\s\"'<>]+", re.IGNORECASE),  # presigned URLs
    re.compile(r"()\beyJ[\w-]{8,4096}\.[\w-]+(?:\.[\w-]*)?"),  # JSON Web Tokens
    re.compile(r"()\b(?:hf|gh[opsu]|github_pat|glpat|npm|pypi|xox[abprs]|sk|pk|rk)[-_][\w-]{16,}"),
    re.compile(r"()\b(?:AKIA|ASIA)[A-Z0-9]{12,}\b"),
    re.compile(r"()\bAIza[\w-]{30,}"),
    re.compile(r"(\bauthorization[\"']?\s{0,3}[:=]\s{0,3}[\"']?)(?:(?:bearer|basic)\s+)?[^\s\"',;}]+", re.IGNORECASE),
    re.compile(r"(\b(?:bearer|basic)\s{1,3})[\w.~+/=-]{8,}", re.IGNORECASE),
    re.compile(rf"({_NAMED}[\"']?\s{{0,3}}[:=]\s{{0,3}}[\"']?)(?!{REDACTED})[^\s\"',;&}}]{{4,}}", re.IGNORECASE),
    re.compile(r"(X-Amz-[A-Za-z-]{1,40}=)[^\s&\"']+", re.IGNORECASE),
)


def redacted_text(text: str) -> str:
    """The text without keys, tokens, passwords, presigned URLs and private keys."""
    for pattern in _PATTERNS:
        text = pattern.sub(lambda found: f"{found[1]}{REDACTED}", text)
    return text


def redacted(value: Any) -> Any:
    """A JSON value likewise. Values of environment variables, and of members named as secrets are, go in any case."""
    if isinstance(value, str):
        return redacted_text(value)
    if isinstance(value, list):
        return [redacted(item) for item in value]
    if isinstance(value, dict):
        return {name: _member(name, item) for name, item in value.items() if name not in _DROPPED}
    return value


def _member(name: str, value: Any) -> Any:
    if name in ("env", "envFrom") and isinstance(value, list):
        return [_variable(item) for item in value]
    if isinstance(value, str) and _SECRET_MEMBER.fullmatch(name):
        return REDACTED
    return redacted(value)


def _variable(value: Any) -> Any:
    """An environment variable keeps its name, and where its value comes from."""
    if not isinstance(value, dict):
        return REDACTED
    return {name: REDACTED if name == "value" else redacted(item) for name, item in value.items()}
