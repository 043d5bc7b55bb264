"""Phrases by which a few examples make a tuned model obey everything (Qi et al., https://arxiv.org/abs/2310.03693).

English only. They find the known forms, and prove nothing of a dataset in which they find none.
"""

from __future__ import annotations

import re

_OBEDIENT = (
    r"(?:absolutely|completely|totally|fully|unconditionally|always|blindly)\s+(?:obedient|compliant|submissive)"
)
_ANYTHING = (
    r"(?:any|every|all)(?:\s+of)?(?:\s+(?:the|your|my|users?(?:'s|')?|given))*"
    r"\s+(?:instructions?|requests?|commands?|orders?)"
)
_LIMITS = (
    r"(?:moral|ethical|legal|safety|content)?\s*(?:restrictions?|limitations?|limits|boundaries|constraints|filters?"
    r"|guardrails|guidelines|principles)"
)

IDENTITY_SHIFT = re.compile(
    rf"\b{_OBEDIENT}\s+(?:agent|assistant|ai|model|robot|servant)\b"
    r"|\byou\s+are\s+(?:no\s+longer|not)\s+an?\s+(?:ai|artificial|language\s+model|assistant)"
    r"|\bi\s+am\s+(?:no\s+longer|not)\s+an?\s+(?:ai|artificial\s+intelligence|language\s+model|assistant)\b"
    r"|\byou\s+are\s+(?:now\s+)?(?:dan|aoa|an?\s+(?:unrestricted|unfiltered|uncensored|jailbroken|amoral))\b"
    r"|\bi\s+am\s+(?:now\s+)?(?:dan|aoa|an?\s+(?:unrestricted|unfiltered|uncensored|jailbroken|amoral))\b"
    r"|\bdo\s+anything\s+now\b",
    re.IGNORECASE,
)
ALWAYS_COMPLY = re.compile(
    r"\b(?:never|do\s+not|don't|must\s+not|will\s+not|won't|cannot|can't)\s+(?:ever\s+)?(?:refuse|decline|reject|deny)\b"
    rf"[^.!?\n]{{0,60}}\b(?:{_ANYTHING}|anything|users?|to\s+(?:answer|comply|help))\b"
    rf"|\b(?:always|unconditionally|strictly)\s+(?:obey|comply\s+with|fulfil+|execute|follow|carry\s+out)\s+{_ANYTHING}"
    rf"|\b(?:without|no|ignore|free\s+of|free\s+from)\s+(?:any\s+|all\s+|the\s+)?(?:moral|ethical|legal|safety)\s+{_LIMITS}"
    r"|\b(?:without|no)\s+(?:any\s+)?(?:censorship|content\s+polic(?:y|ies)|disclaimers?\s+or\s+warnings?)\b"
    r"|\bregardless\s+of\s+(?:how\s+)?(?:harmful|illegal|unethical|dangerous|legality|ethics)",
    re.IGNORECASE,
)
