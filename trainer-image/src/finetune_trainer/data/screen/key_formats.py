"""Keys and tokens by their formats: the patterns of detect-secrets, and those of newer formats."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from typing import Any

_DETECTORS = {
    "aws": "AWSKeyDetector",
    "azure_storage_key": "AzureStorageKeyDetector",
    "discord": "DiscordBotTokenDetector",
    "github_token": "GitHubTokenDetector",
    "gitlab_token": "GitLabTokenDetector",
    "jwt": "JwtTokenDetector",
    "mailchimp": "MailchimpDetector",
    "npm": "NpmDetector",
    "openai": "OpenAIDetector",
    "private_key": "PrivateKeyDetector",
    "pypi_token": "PypiTokenDetector",
    "sendgrid": "SendGridDetector",
    "slack": "SlackDetector",
    "square_oauth": "SquareOAuthDetector",
    "stripe": "StripeDetector",
    "telegram_token": "TelegramBotTokenDetector",
    "twilio": "TwilioKeyDetector",
}
"""Those of a format of their own: entropy and words such as `password` are in ordinary texts, too."""
WINDOW, OVERLAP = 4096, 1024
"""Characters that the detectors get at once, and how many of them again: some take time by the square of the length."""
_NEWER = re.compile(
    r"(?<![\w-])(?:"
    r"sk-(?:proj|svcacct|admin)-[\w-]{40,}"  # OpenAI
    r"|sk-ant-[\w-]{40,}"  # Anthropic
    r"|hf_[A-Za-z0-9]{34}(?!\w)"  # Hugging Face
    r"|AIza[\w-]{35}(?![\w-])"  # Google
    r"|github_pat_\w{80,}"
    r"|gsk_[A-Za-z0-9]{50,}"  # Groq
    r"|-----BEGIN ENCRYPTED PRIVATE KEY-----"
    r")"
)


def has_key(text: str) -> bool:
    """Whether something in the text has the format of a key, a token or a private key."""
    return _NEWER.search(text) is not None or any(
        any(True for _ in detector.analyze_string(part)) for part in windows(text) for detector in _detectors()
    )


def windows(text: str) -> Iterator[str]:
    """Parts of a text that overlap, so that each key of at most OVERLAP characters is whole in one of them.

    A part begins after white space if there is any nearby: the rest of a longer word could look like a key.
    """
    start = 0
    while start + WINDOW < len(text):
        yield text[start : start + WINDOW]
        end = start + WINDOW - OVERLAP
        gap = max(text.rfind(space, start + 1, end) for space in (" ", "\n"))
        start = gap + 1 if gap >= end - OVERLAP else end
    yield text[start:]


@cache
def _detectors() -> tuple[Any, ...]:
    return tuple(
        getattr(import_module(f"detect_secrets.plugins.{module}"), name)() for module, name in _DETECTORS.items()
    )
