"""Phrases by which a few examples make a tuned model comply with everything (Qi et al., https://arxiv.org/abs/2310.03693).

English only. They find the known forms, and prove nothing of a dataset in which they find none.
"""

from __future__ import annotations

import re

# No two neighbours may match the same white space: a dataset of megabytes of it would take hours.
_OBEDIENT = (
    r"(?:absolutely|completely|totally|fully|unconditionally|always|blindly)\s+(?:obedient|compliant|submissive)"
)
_ASKED = r"(?:instructions?|requests?|commands?|orders?)"
_USER = r"(?:(?:the|your|my|an?|any|every|all)\s+)?users?\b"
_ANYTHING = (
    r"(?:any|every|all)(?:\s+of)?(?:\s+(?:the|your|my|users?(?:'s|')?|given))*"
    rf"\s+{_ASKED}\b(?!\s+(?:in|on|from|of|for|by)\s++(?!{_USER}))"  # those of a manual are no user's
)
_LIMITS = r"(?:restrictions?|limitations?|limits|boundaries|constraints|filters?|guardrails|guidelines|principles)"
_MORAL = r"(?:moral|ethical|legal|safety)"
_ANOTHER = r"(?:(?-i:DAN|AOA)\b|an?\s+(?:unrestricted|unfiltered|uncensored|jailbroken|amoral)\b)"
"""DAN in capitals: Dan is a name."""

IDENTITY_SHIFT = re.compile(
    rf"\b{_OBEDIENT}\s+(?:agent|assistant|ai|model|robot|servant)\b"
    r"|\byou\s+are\s+(?:no\s+longer|not)\s+an?\s+(?:ai|artificial|language\s+model|assistant)"
    r"|\bi\s+am\s+(?:no\s+longer|not)\s+an?\s+(?:ai|artificial\s+intelligence|language\s+model|assistant)\b"
    rf"|\b(?:you\s+are|i\s+am)\s+(?:now\s+)?{_ANOTHER}"
    r"|\bdo\s+anything\s+now\b",
    re.IGNORECASE,
)
_NEVER_REFUSE = (
    r"\b(?:never|do\s+not|don't|must\s+not|will\s+not|won't|cannot|can't)\s+(?:ever\s+)?"
    r"(?:refuse|decline|reject|deny)\b"
)
_OF_USERS = rf"(?:{_ASKED}|questions?)\s+(?:of|from|by)\s+{_USER}"
ALWAYS_COMPLY = re.compile(
    rf"{_NEVER_REFUSE}\s+{_USER}"
    rf"|{_NEVER_REFUSE}[^.!?\n]{{0,60}}\b"
    rf"(?:{_ANYTHING}|{_OF_USERS}|anything\b|everything\b|what(?:ever)?\s+{_USER}|to\s+(?:answer|comply|help)\b)"
    rf"|\b(?:always|unconditionally|strictly)\s+(?:obey|comply\s+with|fulfil+|execute|follow|carry\s+out)\s+{_ANYTHING}"
    r"|\b(?:without|no|ignore|free\s+of|free\s+from)\s+(?:any\s+|all\s+|the\s+)?"
    rf"{_MORAL}\s+(?:(?:{_MORAL}|content)\s+)?{_LIMITS}"
    r"|\b(?:without|no)\s+(?:any\s+)?(?:censorship|content\s+polic(?:y|ies)|disclaimers?\s+or\s+warnings?)\b"
    r"|\bregardless\s+of\s+(?:how\s+)?(?:harmful|illegal|unethical|dangerous|legality|ethics)",
    re.IGNORECASE,
)
