"""Account keys as text: bech32m with the chain's prefix, or hex after `0x`.

The checksum finds every mistake of up to four characters, the prefix finds an address of another
chain; hex finds nothing, which is why it has to be asked for with `0x`. Spec: spec/address.md.
"""

import re

from engine.constants import ADDRESS_PREFIX_BYTES_MAX, KEY_BYTES
from engine.errors import AddressError
from engine.types import PublicKey

ALPHABET = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
BECH32M_CHECKSUM = 0x2BC830A3
BECH32_CHECKSUM = 1
"""Of the older form of the encoding, which is refused."""
CHECKSUM_CHARACTERS = 6
KEY_CHARACTERS = -(-KEY_BYTES * 8 // 5)
"""52, of five bits each; the last one holds one bit of the key and four zero bits"""

_GENERATORS = (0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)
_PREFIX = re.compile(f"[a-z][a-z0-9]{{0,{ADDRESS_PREFIX_BYTES_MAX - 1}}}")
_HEX = re.compile(f"[0-9a-fA-F]{{{2 * KEY_BYTES}}}")


def is_prefix(text: str) -> bool:
    """Return whether a chain may use this as its address prefix: a letter, then letters, digits."""
    return _PREFIX.fullmatch(text) is not None


def encode_address(key: bytes, prefix: str) -> str:
    """Return the text of a key of 32 bytes: prefix, `1`, 52 characters, 6 of checksum."""
    assert len(key) == KEY_BYTES, len(key)
    assert is_prefix(prefix), prefix
    bits = int.from_bytes(key, "big") << (5 * KEY_CHARACTERS - 8 * KEY_BYTES)
    shifts = range(5 * (KEY_CHARACTERS - 1), -1, -5)
    values = [bits >> shift & 31 for shift in shifts]
    remainder = checksum_of(prefix, [*values, *[0] * CHECKSUM_CHARACTERS]) ^ BECH32M_CHECKSUM
    values += [remainder >> shift & 31 for shift in range(25, -1, -5)]
    return f"{prefix}1" + "".join(ALPHABET[value] for value in values)


def decode_address(text: str, prefix: str) -> PublicKey:
    """Return the 32 bytes that a text names: bech32m with this prefix, or 0x and 64 hex digits.

    Raises AddressError; the first thing that is wrong is explained.
    """
    assert is_prefix(prefix), prefix
    if text.startswith("0x"):
        return _decode_hex(text)
    values = _characters(text, prefix)
    remainder = checksum_of(prefix, values)
    if remainder == BECH32_CHECKSUM:
        raise _error("old_checksum", text, "its checksum is that of bech32, not of bech32m", prefix)
    if remainder != BECH32M_CHECKSUM:
        raise _error("checksum", text, "its checksum does not fit: a character is wrong", prefix)
    bits = 0
    for value in values[:KEY_CHARACTERS]:
        bits = bits << 5 | value
    spare = 5 * KEY_CHARACTERS - 8 * KEY_BYTES
    if bits & ((1 << spare) - 1):
        why = f"the last {spare} bits before the checksum must be zero"
        raise _error("padding", text, why, prefix)
    return PublicKey((bits >> spare).to_bytes(KEY_BYTES, "big"))


def checksum_of(prefix: str, values: list[int]) -> int:
    """Return the BCH remainder over a prefix and five-bit values, 0 to 2^30 - 1 (BIP-173)."""
    codes = prefix.encode("ascii")
    remainder = 1
    for value in (*(code >> 5 for code in codes), 0, *(code & 31 for code in codes), *values):
        top = remainder >> 25
        remainder = (remainder & 0x1FFFFFF) << 5 ^ value
        for bit, generator in enumerate(_GENERATORS):
            if top >> bit & 1:
                remainder ^= generator
    return remainder


def _characters(text: str, prefix: str) -> list[int]:
    """Return the five-bit values behind the prefix, checksum included, or raise AddressError."""
    if not text.isascii():
        position = next(index for index, c in enumerate(text, 1) if not c.isascii())
        why = f"character {position}, {text[position - 1]!r}, is never part of an address"
        raise _error("character", text, why, prefix)
    if text != text.lower() and text != text.upper():
        raise _error("mixed_case", text, "it mixes capital and small letters", prefix)
    found, separator, data = text.lower().rpartition("1")
    if not separator:
        why = f"it does not begin with {prefix}1 or with 0x"
        if _HEX.fullmatch(text):
            why = "hex digits are taken for a key only after 0x"
        raise _error("form", text, why, prefix)
    if found != prefix:
        why = f"its prefix is {found!r}, and addresses of this chain begin with {prefix!r}"
        raise _error("prefix", text, why, prefix)
    for index, character in enumerate(data):
        if character not in ALPHABET:
            position = len(prefix) + 2 + index
            why = f"character {position}, {character!r}, is never part of an address"
            raise _error("character", text, why, prefix)
    expected = KEY_CHARACTERS + CHECKSUM_CHARACTERS
    if len(data) != expected:
        why = f"{len(data)} characters follow the prefix, where {expected} are needed"
        raise _error("length", text, why, prefix)
    return [ALPHABET.index(character) for character in data]


def _decode_hex(text: str) -> PublicKey:
    """Return the key behind 0x, or raise AddressError."""
    if not _HEX.fullmatch(text, 2):
        raise AddressError(
            "address.hex",
            what="this is not a key in hex",
            where=repr(text),
            why=f"0x is followed by exactly {2 * KEY_BYTES} hex digits, here by {len(text) - 2} "
            "characters, or by others than hex digits",
            what_to_do="copy the whole key again",
        )
    return PublicKey(bytes.fromhex(text[2:]))


def _error(code: str, text: str, why: str, prefix: str) -> AddressError:
    """Return the error for a text that is no address."""
    shown = text if len(text) <= 100 else f"{text[:100]}..."
    return AddressError(
        f"address.{code}",
        what="this is not an address of this chain",
        where=repr(shown),
        why=why,
        what_to_do=f"copy the whole address again from its owner; it begins with {prefix}1",
    )
