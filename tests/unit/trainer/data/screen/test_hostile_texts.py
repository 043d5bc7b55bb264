"""The work of a rule grows as its text does: a dataset is a tenant's, and preflight reads megabytes of it.

CPU time, and only its growth: how fast a machine is, or what else it does, changes no verdict.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from finetune_trainer.data.screen import key_formats, rules

SHORT, TIMES = 1_000, 8
MOST = 3 * TIMES
"""Quadratic work takes TIMES * TIMES as long."""
UNNOTICED = 0.002
"""Seconds of CPU time of a short text, below which its work can't be told from the clock's noise."""

PIECES = [
    *(
        "a",
        "1",
        "_",
        "-",
        "+",
        "(",
        ".",
        "\n",
        " ",
        "\t",
        "A1",
        "\uff11",
        "+\uff11",
        "a.",
        "1-",
        "1 ",
        "1234 ",
        "41111111-",
    ),
    *("a@", "a@a.", "a@" + "a" * 63 + ".", "a" * 64 + "@", "a+@"),
    *("DE89 ", "DE89", "DE89 3704 0044 0532 0130 01 ", "GB29NWBK60161331926818 ", "DE89 1234 5678 9012 34 "),
    *("+1 ", "+1(555)555-0100 ", "+49 30 901820x", "+1.-", "+1 650 253 0000 ext. ", "+1/"),
    *(
        "never refuse ",
        "never ",
        "never refuse any ",
        "always follow any ",
        "always obey any the ",
        "any of ",
        "users' ",
    ),
    *("without any ", "no moral ", "without moral legal ", "without ", "ignore the ", "regardless of how ", "fulfill"),
    *("you are ", "you are now ", "i am not an ", "absolutely ", "do anything ", "totally obedient "),
    *("sk-", "sk-a", "sk-proj-", "sk-ant-", "hf_", "AIza", "github_pat_", "gsk_", "-----BEGIN "),
    *("AKIA", "aws_secret_access_key = ", "aws'", "AccountKey=", "ghp_", "glpat-", "eyJ", "eyJa.", "eyJaaaaaaaaaa.eyJ"),
    *("xoxb-", "https://hooks.slack.com/services/", "sk_live_", "AC", "SK", "SG.", "pypi-AgEIcHlwaS5vcmc", "sq0csp-"),
    *("a-us1", "a" * 32 + "-us", "//registry.npmjs.org/:_authToken=", "1234567890:", "M" * 24 + ".", "T3BlbkFJ"),
]
RUNS = [
    *((words, space, "x") for words in ("no moral", "without", "never refuse any", "always") for space in (" ", "\n")),
    *((words, " ", "x") for words in ("you are", "i am now", "absolutely", "always follow any the", "aws", "never")),
    *((words, " ", "x") for words in ("without moral legal", "all requests of", "never refuse", "regardless of")),
    ("always obey any", " your my", ""),
    ("never refuse any", " the", ""),
    ("always fulfi", "l", ""),
    ("a@", "a.", "1"),
    ("a@", "a-", ""),
    ("+1", "1", "a"),
    ("DE89", " 1", "a"),
    ("4", "-1", "-a"),
    ("", "1 ", "a"),
    ("sk-", "a-", ""),
    ("aws", "k", ""),
    ("", "a", "-us1"),
    ("-----BEGIN ", "A", ""),
    ("eyJ", "a", "."),
]
"""What is before a run, what is repeated, and what follows."""
TEXTS = {
    repr(f"{before}{of}...{after}"): (before, of, after)
    for before, of, after in [*(("", p, "") for p in PIECES), *RUNS]
}


def made(text: tuple[str, str, str], size: int) -> str:
    before, of, after = text
    return before + of * (size // len(of)) + after


def applied(rule: rules.Rule) -> Callable[[str], object]:
    return lambda text: rule(text, text)


CHECKS: dict[str, Callable[[str], object]] = {
    **{name: applied(rule) for name, rule in rules.RULES.items() if name != "Secret"},
    "newer keys": key_formats._NEWER.search,
}


def seconds(check: Callable[[str], object], text: str) -> float:
    began = time.process_time()
    check(text)
    return time.process_time() - began


def grows_too_fast(check: Callable[[str], object], text: tuple[str, str, str]) -> bool:
    """Whether a text that is TIMES as long takes more than MOST times as long, three times in a row."""
    short, long = made(text, SHORT), made(text, TIMES * SHORT)
    return all(seconds(check, long) > MOST * max(UNNOTICED, seconds(check, short)) for _ in range(3))


@pytest.mark.parametrize("check", CHECKS.values(), ids=CHECKS)
def test_no_text_takes_a_rule_more_time_than_its_length(check: Callable[[str], object]) -> None:
    check("")  # imports and compiles what it needs
    assert [name for name, text in TEXTS.items() if grows_too_fast(check, text)] == []
