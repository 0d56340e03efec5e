"""Addresses are bech32m, found wrong when they are, and explained."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.address import (
    ALPHABET,
    BECH32_CHECKSUM,
    BECH32M_CHECKSUM,
    checksum_of,
    decode_address,
    encode_address,
    is_prefix,
)
from engine.errors import AddressError
from spec import oracle

KEY = bytes(range(32))
KEYS = st.binary(min_size=32, max_size=32)
PREFIXES = st.from_regex(r"[a-z][a-z0-9]{0,15}", fullmatch=True)


def code_of(text: str, prefix: str = "tos") -> str:
    """Return the code of the error that a text gives."""
    with pytest.raises(AddressError) as caught:
        decode_address(text, prefix)
    return caught.value.code


def with_checksum(values: list[int], constant: int) -> str:
    """Return five-bit values as an address with a checksum of the given constant."""
    remainder = checksum_of("tos", [*values, *[0] * 6]) ^ constant
    values = values + [remainder >> shift & 31 for shift in range(25, -1, -5)]
    return "tos1" + "".join(ALPHABET[value] for value in values)


@given(KEYS, PREFIXES)
def test_round_trip(key: bytes, prefix: str) -> None:
    """Every key survives its text, in small letters, in capitals and in hex."""
    text = encode_address(key, prefix)
    assert text == oracle.encode_address(key, prefix)
    for form in (text, text.upper(), f"0x{key.hex()}", f"0x{key.hex().upper()}"):
        assert decode_address(form, prefix) == key
        assert oracle.decode_address(form, prefix) == key
    assert is_prefix(prefix)
    assert oracle.is_address_prefix(prefix)


@pytest.mark.parametrize(
    "text",
    [
        "a1lqfn3a",
        "an83characterlonghumanreadablepartthatcontainsthetheexcludedcharactersbioandnumber11sg7hg6",
        "abcdef1l7aum6echk45nj3s0wdvt2fg8x9yrzpqzd3ryx",
        "split1checkupstagehandshakeupstreamerranterredcaperredlc445v",
        "?1v759aa",
    ],
)
def test_checksum_of_published_vectors(text: str) -> None:
    """The valid strings of BIP-350 have the checksum of bech32m."""
    prefix, _, data = text.rpartition("1")
    assert checksum_of(prefix, [ALPHABET.index(c) for c in data]) == BECH32M_CHECKSUM


@given(KEYS, st.data())
def test_wrong_characters_are_found(key: bytes, data: st.DataObject) -> None:
    """One to four other characters are always found, as the checksum promises."""
    text = list(encode_address(key, "tos"))
    for index in data.draw(st.sets(st.integers(4, len(text) - 1), min_size=1, max_size=4)):
        others = ALPHABET.replace(text[index], "")
        text[index] = data.draw(st.sampled_from(others))
    damaged = "".join(text)
    assert code_of(damaged) in ("address.checksum", "address.old_checksum")
    with pytest.raises(ValueError, match="checksum"):
        oracle.decode_address(damaged, "tos")


@given(st.text(max_size=80))
def test_any_text_is_answered(text: str) -> None:
    """Any other text is explained by an AddressError and by nothing else; the oracle agrees."""
    try:
        key = decode_address(text, "tos")
    except AddressError:
        with pytest.raises(ValueError, match=r"."):
            oracle.decode_address(text, "tos")
    else:
        assert oracle.decode_address(text, "tos") == key


def test_errors_explain() -> None:
    """Each way to be wrong has its own code."""
    text = encode_address(KEY, "tos")
    assert code_of(text[:-1] + text[-1].upper()) == "address.mixed_case"
    assert code_of(encode_address(KEY, "tost")) == "address.prefix"
    assert code_of(text[:-1]) == "address.length"
    assert code_of(text + "q") == "address.length"
    assert code_of(text[:-1] + "b") == "address.character"
    assert code_of(text + " ") == "address.character"
    assert code_of(KEY.hex().replace("1", "0")) == "address.form"
    assert code_of("") == "address.form"
    assert code_of("0x" + KEY.hex()[:-1]) == "address.hex"
    assert code_of("0x" + KEY.hex() + "0") == "address.hex"
    assert code_of("0x" + KEY.hex()[:-1] + "g") == "address.hex"
    assert code_of(with_checksum([0] * 52, BECH32_CHECKSUM)) == "address.old_checksum"


def test_look_alikes_are_refused() -> None:
    """A character beyond ASCII is refused, also one whose small form is a letter of addresses."""
    text = next(
        text for text in (encode_address(bytes([n]) * 32, "tos") for n in range(256)) if "k" in text
    )
    kelvin = text.upper().replace("K", "\N{KELVIN SIGN}")
    assert kelvin.lower() == text
    assert code_of(kelvin) == "address.character"
    with pytest.raises(ValueError, match="ASCII"):
        oracle.decode_address(kelvin, "tos")


@pytest.mark.parametrize("spare", range(1, 16))
def test_spare_bits_are_zero(spare: int) -> None:
    """A key has no second text with a good checksum."""
    text = with_checksum([*[0] * 51, spare], BECH32M_CHECKSUM)
    assert code_of(text) == "address.padding"
    with pytest.raises(ValueError, match="spare"):
        oracle.decode_address(text, "tos")


@pytest.mark.parametrize("prefix", ["", "T", "1a", "a" * 17, "a-b", "tös", "a\n"])
def test_bad_prefixes(prefix: str) -> None:
    """A prefix is a small letter, then up to 15 small letters or digits."""
    assert not is_prefix(prefix)
    assert not oracle.is_address_prefix(prefix)
