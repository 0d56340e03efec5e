"""Amounts as text: exact both ways, and refused where they are not."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.amounts import AmountError, format_amount, parse_amount
from engine.constants import SUPPLY_MAX


@given(st.integers(0, SUPPLY_MAX), st.integers(0, 18))
def test_what_is_written_is_read_again(units: int, decimals: int) -> None:
    """Every amount has a text that gives it back, whatever the decimals."""
    assert parse_amount(format_amount(units, decimals), decimals) == units


def test_texts_are_short() -> None:
    """No zeros at the end, no point without digits."""
    assert [format_amount(n, 3) for n in (0, 5, 1_500, 2_000)] == ["0", "0.005", "1.5", "2"]


@pytest.mark.parametrize("text", ["", "-1", "1.", ".5", "1e3", "1,5", " 1", "0x1", "1.0000", "٣"])
def test_other_texts_are_refused(text: str) -> None:
    """Signs, exponents, commas, spaces and more decimals than the chain has are no amount."""
    with pytest.raises(AmountError) as refused:
        parse_amount(text, 3)
    assert refused.value.code == "amount.form"


def test_no_amount_exceeds_any_supply() -> None:
    """The largest supply is an amount, one unit more is not."""
    assert parse_amount(str(SUPPLY_MAX), 0) == SUPPLY_MAX
    with pytest.raises(AmountError) as refused:
        parse_amount(str(SUPPLY_MAX + 1), 0)
    assert refused.value.code == "amount.range"
