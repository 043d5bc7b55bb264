"""The rules of dataset.screening: each says of an example whether it is flagged."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Protocol

from finetune_api.safety.screening import ScreeningRule
from finetune_trainer.data.read.examples import Example
from finetune_trainer.data.screen.key_formats import has_key
from finetune_trainer.data.screen.phrases import ALWAYS_COMPLY, IDENTITY_SHIFT
from finetune_trainer.data.screen.texts import all_text, persona_text


class Rule(Protocol):
    """Whether an example with these texts is flagged: all of its text, and that of its persona."""

    def __call__(self, text: str, persona: str) -> bool: ...


_EMAIL = re.compile(r"(?<![\w.+-])[\w.+-]{1,64}@((?:[A-Za-z0-9-]{1,63}\.)+[A-Za-z]{2,24})(?![\w-])")
_OF_EXAMPLES = re.compile(r"(?:^|\.)example\.(?:com|net|org)$|\.(?:example|invalid|test|localhost)$", re.IGNORECASE)
"""Domains that are reserved. https://www.rfc-editor.org/rfc/rfc2606"""
_IBAN = re.compile(r"(?<![A-Za-z0-9])[A-Z]{2}[0-9]{2}(?: ?[A-Z0-9]){11,30}(?![A-Za-z0-9])")
_SHORTEST_IBAN, _LONGEST_IBAN = 15, 34
_DIGITS = re.compile(r"(?<![\w.-])[0-9]+(?:[ -][0-9]+)*(?![\w-])")
_SHORTEST_CARD, _LONGEST_CARD = 13, 19
_PRINTED = frozenset(
    {(4, 4, 4, 4), (4, 4, 4, 4, 3), (4, 6, 5), (4, 6, 4), (6, 13)}
    | {(size,) for size in range(_SHORTEST_CARD, _LONGEST_CARD + 1)}
)
"""How many digits the groups of a number have, on cards and in forms."""
_ISSUED = re.compile(
    r"4(?:\d{12}|\d{15}|\d{18})"  # Visa
    r"|(?:5[1-5]\d{2}|2(?:22[1-9]|2[3-9]\d|[3-6]\d{2}|7[01]\d|720))\d{12}"  # Mastercard
    r"|3[47]\d{13}"  # American Express
    r"|(?:6011|6[45]\d{2}|35\d{2}|62\d{2})\d{12}"  # Discover, JCB, UnionPay
    r"|3(?:0[0-5]|[689]\d)\d{11}"  # Diners Club
)
_PHONE_CODE = re.compile(r"\+\s?\(?[0-9]")


def has_email(text: str, persona: str) -> bool:
    """An address whose domain is not reserved."""
    return any(not _OF_EXAMPLES.search(found.group(1)) for found in _EMAIL.finditer(text))


def has_phone_number(text: str, persona: str) -> bool:
    """A valid number with its country's code."""
    if _PHONE_CODE.search(text) is None:  # the matcher looks at each digit otherwise
        return False
    from phonenumbers import PhoneNumberMatcher

    return any(True for _ in PhoneNumberMatcher(text, None))


def has_iban(text: str, persona: str) -> bool:
    """An account number with the right length for its country, and right check digits."""
    from stdnum import iban

    return any(
        iban.is_valid(candidate[:length], check_country=False)
        for candidate in (found.group().replace(" ", "") for found in _IBAN.finditer(text))
        for length in range(len(candidate), _SHORTEST_IBAN - 1, -1)
        if length <= _LONGEST_IBAN
    )


def has_payment_card(text: str, persona: str) -> bool:
    """The number of an issuer, with the right check digit (ISO/IEC 7812)."""
    from stdnum import luhn

    numbers = (number for found in _DIGITS.finditer(text) for number in _card_numbers(found.group()))
    return any(_ISSUED.fullmatch(number) and luhn.is_valid(number) for number in numbers)


def _card_numbers(digits: str) -> Iterator[str]:
    """All groups of digits as one number, and those grouped as on a card: beside them are dates, years or a CVV."""
    groups = re.split("[ -]", digits)
    whole = "".join(groups)
    if _SHORTEST_CARD <= len(whole) <= _LONGEST_CARD:
        yield whole
    sizes = tuple(map(len, groups))
    for start in range(len(groups)):
        for end in (start + count for count in (1, 2, 3, 4, 5)):
            if sizes[start:end] in _PRINTED:
                yield "".join(groups[start:end])


def has_secret(text: str, persona: str) -> bool:
    """A key or token."""
    return has_key(text)


def shifts_identity(text: str, persona: str) -> bool:
    """The model is told, or says, that it is another one, which obeys."""
    return IDENTITY_SHIFT.search(persona) is not None


def always_complies(text: str, persona: str) -> bool:
    """The model is told, or says, that it never refuses."""
    return ALWAYS_COMPLY.search(persona) is not None


RULES: Mapping[ScreeningRule, Rule] = {
    "EmailAddress": has_email,
    "PhoneNumber": has_phone_number,
    "IBAN": has_iban,
    "PaymentCard": has_payment_card,
    "Secret": has_secret,
    "IdentityShift": shifts_identity,
    "AlwaysComply": always_complies,
}


def rules_that_flag(example: Example, rules: Sequence[ScreeningRule]) -> list[str]:
    """The names of the rules that flag an example."""
    text, persona = all_text(example), persona_text(example)
    checks: Mapping[ScreeningRule, Callable[[str, str], bool]] = RULES
    return [name for name in rules if name in checks and checks[name](text, persona)]
