"""Credentials are what the mounted Secret's files hold now, and never shown."""

from __future__ import annotations

from pathlib import Path

import pytest
from botocore.exceptions import PartialCredentialsError
from botocore.session import Session

from finetune_trainer.storage.credentials import give_credentials, hide_credentials, read_credentials


def mount(directory: Path, version: str, **keys: str) -> None:
    """Write a version of the Secret as the kubelet does: into a new folder, then `..data` is turned to it."""
    folder = directory / f"..{version}"
    folder.mkdir(parents=True)
    for name, value in keys.items():
        (folder / name).write_text(value)
        if not (directory / name).is_symlink():
            (directory / name).symlink_to(Path("..data") / name)
    turned = directory / "..data_tmp"
    turned.symlink_to(folder.name)
    turned.rename(directory / "..data")


def found(directory: Path) -> tuple[str, str, str | None]:
    """What botocore signs with, when `directory` is where the Secret would be mounted."""
    session = Session()
    give_credentials(session, directory)
    frozen = session.get_credentials().get_frozen_credentials()
    return frozen.access_key, frozen.secret_key, frozen.token


def test_the_files_of_the_secret_come_before_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "of the environment")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "of the environment")
    mount(tmp_path, "1", AWS_ACCESS_KEY_ID="key\n", AWS_SECRET_ACCESS_KEY="secret\n", AWS_SESSION_TOKEN="token\n")
    assert found(tmp_path) == ("key", "secret", "token")


def test_without_a_mounted_secret_the_environment_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.delenv("AWS_SESSION_TOKEN", raising=False)
    assert found(tmp_path / "none") == ("key", "secret", None)


def test_a_rotated_secret_is_used_by_the_client_that_is_there(tmp_path: Path) -> None:
    mount(tmp_path, "1", AWS_ACCESS_KEY_ID="old", AWS_SECRET_ACCESS_KEY="old", AWS_SESSION_TOKEN="old")
    session = Session()
    give_credentials(session, tmp_path)
    credentials = session.get_credentials()
    assert credentials.get_frozen_credentials().access_key == "old"
    mount(tmp_path, "2", AWS_ACCESS_KEY_ID="new", AWS_SECRET_ACCESS_KEY="fresh")
    assert tuple(credentials.get_frozen_credentials()[:3]) == ("new", "fresh", None)


@pytest.mark.parametrize("lacking", ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"])
@pytest.mark.parametrize("content", [None, " \n"])
def test_a_secret_without_a_key_is_refused_by_its_name(tmp_path: Path, lacking: str, content: str | None) -> None:
    keys = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret"}
    del keys[lacking]
    mount(tmp_path, "1", **keys, **({} if content is None else {lacking: content}))
    with pytest.raises(PartialCredentialsError, match=lacking):
        read_credentials(tmp_path)


def hidden(tmp_path: Path, text: str, **keys: str) -> str:
    mount(tmp_path, "1", **{"AWS_ACCESS_KEY_ID": "AKIA1", "AWS_SECRET_ACCESS_KEY": "s3cr3t", **keys})
    session = Session()
    give_credentials(session, tmp_path)
    return hide_credentials(text, session.get_credentials())


def test_secrets_that_a_server_repeats_are_hidden_and_the_name_of_the_key_is_not(tmp_path: Path) -> None:
    said = hidden(tmp_path, "AKIA1 with token t0ken, signed by s3cr3t: no", AWS_SESSION_TOKEN="t0ken")
    assert said == "AKIA1 with token [hidden], signed by [hidden]: no"
    assert hide_credentials("nothing to hide", None) == "nothing to hide"


@pytest.mark.parametrize(
    "around", ["by {}.", "secret={}&x=1", "<Secret>{}</Secret>", "a:{}@host", '"{}"', "({})", "{}"]
)
def test_a_short_secret_is_hidden_wherever_a_server_repeats_it(tmp_path: Path, around: str) -> None:
    assert hidden(tmp_path, around.format("s3cr3t")) == around.format("[hidden]")


def test_a_secret_that_is_a_common_word_leaves_other_words_whole(tmp_path: Path) -> None:
    text = "http://s3.key-storage.svc:80 refused s3://keys/key-2/key.txt. Check the keys in the Secret; sent key, no."
    told = hidden(tmp_path, text, AWS_ACCESS_KEY_ID="s3", AWS_SECRET_ACCESS_KEY="key")
    assert told == text.replace("sent key", "sent [hidden]")


def test_a_long_secret_is_hidden_within_words_too(tmp_path: Path) -> None:
    key = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
    assert hidden(tmp_path, f"s3://a/{key}-1 x{key}x", AWS_SECRET_ACCESS_KEY=key) == "s3://a/[hidden]-1 x[hidden]x"


def test_the_nodes_own_role_is_never_asked(tmp_path: Path) -> None:
    session = Session()
    give_credentials(session, tmp_path / "none")
    methods = [provider.METHOD for provider in session.get_component("credential_provider").providers]
    assert "iam-role" not in methods
    assert methods[0] == "mounted-secret"
