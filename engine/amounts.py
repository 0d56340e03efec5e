"""Amounts as people write them: whole units with decimals, `1.5`; exact, since no float is made."""

import re

from engine.constants import SUPPLY_MAX
from runtime.errors import ExplainedError

_AMOUNT = re.compile(r"([0-9]{1,19})(?:\.([0-9]{1,18}))?")


class AmountError(ExplainedError):
    """A text that is no amount. Codes begin with `amount.`"""


def parse_amount(text: str, decimals: int) -> int:
    """Return the base units of a text like `12` or `0.000001`. Raises AmountError."""
    match = _AMOUNT.fullmatch(text)
    fraction = (match[2] or "") if match else ""
    if match is None or len(fraction) > decimals:
        raise AmountError(
            "amount.form",
            what=f"{text[:40]!r} is no amount",
            where="the amount",
            why=f"an amount is digits, and at most {decimals} more after a point",
            what_to_do="write for example 12 or 0.5",
        )
    value: int = int(match[1]) * 10**decimals + int(fraction.ljust(decimals, "0") or "0")
    if value > SUPPLY_MAX:
        raise AmountError(
            "amount.range",
            what=f"{text} is more than any chain has",
            where="the amount",
            why=f"the supply is at most {SUPPLY_MAX} base units",
            what_to_do="write a smaller amount",
        )
    return value


def format_amount(units: int, decimals: int) -> str:
    """Return base units as whole ones, without zeros at the end: `12`, `0.5`."""
    whole, rest = divmod(units, 10**decimals)
    fraction = f"{rest:0{decimals}d}".rstrip("0") if decimals else ""
    return f"{whole}.{fraction}" if fraction else str(whole)
