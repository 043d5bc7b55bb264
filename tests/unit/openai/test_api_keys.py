"""API keys in a folder as the kubelet mounts a Secret."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from finetune_openai.auth.api_keys import account_of

KEY = "sk-ft-" + "k" * 32
DIGEST = hashlib.sha256(KEY.encode()).hexdigest()


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (DIGEST, "client"),
        (f"{DIGEST.upper()} 2099-01-01T00:00:00Z", "client"),
        (f"{DIGEST} 2020-01-01T00:00:00Z", None),
        (f"{DIGEST} 2099-01-01T00:00:00", None),
        (f"{DIGEST} tomorrow", None),
        (f"{DIGEST} 2099-01-01T00:00:00Z more", None),
        (KEY, None),
        ("", None),
        ("\xff\x00", None),
    ],
)
def test_a_line_is_a_digest_and_maybe_its_expiry(tmp_path: Path, line: str, expected: str | None) -> None:
    (tmp_path / "client").write_text(line)
    assert account_of(KEY, tmp_path) == expected


def test_what_is_no_entry_of_the_secret_is_not_read(tmp_path: Path) -> None:
    for name in ("..data", "UPPER", ".hidden"):
        (tmp_path / name).write_text(DIGEST)
    (tmp_path / "folder").mkdir()
    assert account_of(KEY, tmp_path) is None
    assert account_of(KEY, tmp_path / "missing") is None


def test_a_short_key_is_refused_though_its_digest_is_there(tmp_path: Path) -> None:
    (tmp_path / "client").write_text(hashlib.sha256(b"sk-ft-short").hexdigest())
    assert account_of("sk-ft-short", tmp_path) is None
