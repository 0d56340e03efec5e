"""Layers of settings: what a program with tables declares, writes and refuses.

Precedence and refusals of plain keys are shown on a real program in tests/engine/test_config.py.
"""

import tomllib
from pathlib import Path
from typing import Annotated

import msgspec
import pytest
from msgspec import Meta

from runtime.settings import Config, ConfigError, Layers, set_keys, toml_table


class Friend(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table."""

    name: str
    age: Annotated[int, Meta(ge=0)] = 0


class Few(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Two plain keys and a list of tables."""

    colour: str = "red"
    size: Annotated[int, Meta(ge=-5, le=100)] = 1
    friends: tuple[Friend, ...] = ()


MEANINGS = {"colour": "what is seen", "size": "how much", "friends": "who comes"}
LAYERS = Layers(Few, MEANINGS, prefix="FEW_", program="few")


def load(
    home: Path, text: str | None = None, environment: dict[str, str] | None = None
) -> Config[Few]:
    """Load from a file and the environment."""
    if text is not None:
        (home / "node.toml").write_text(text)
    return LAYERS.load(home, environment=environment or {}, flags={})


def test_tables_come_from_the_file_alone(tmp_path: Path) -> None:
    """A list of tables is read; no variable and no flag of that name exists."""
    text = "size = 3\n" + toml_table("friends", {"name": 'the "first"', "age": 7})
    text += toml_table("friends", {"name": "b"})
    config = load(tmp_path, text, {"FEW_FRIENDS": "x"})
    assert config.settings.friends == (Friend(name='the "first"', age=7), Friend(name="b"))
    assert config.origins["friends"] == str(tmp_path / "node.toml")
    assert LAYERS.plain_keys == ("colour", "size")


@pytest.mark.parametrize(
    ("text", "code", "words"),
    [
        ("[[friends]]\nnam = 'a'", "config.unknown_key", ["'nam'", "did you mean 'name'", "[[f"]),
        ("[[friends]]\nname = 'a'\nage = -1", "config.value", ["friends[0].age"]),
        ("[[friends]]\nage = 1", "config.value", ["friends", "name"]),
        ("friends = 3", "config.value", ["friends"]),
        ("[[friend]]\nname = 'a'", "config.unknown_key", ["did you mean 'friends'"]),
    ],
)
def test_a_bad_table_is_explained(tmp_path: Path, text: str, code: str, words: list[str]) -> None:
    """What is wrong in a table is named with its place, and what was meant."""
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text)
    assert caught.value.code == code
    for word in [*words, str(tmp_path)]:
        assert word in str(caught.value)


def test_a_template_sets_what_it_is_told_and_explains_all(tmp_path: Path) -> None:
    """The written file reads as its values, and every key is explained, tables too."""
    text = LAYERS.template(colour="blue\n", size=-5)
    assert load(tmp_path, text).settings == Few(colour="blue\n", size=-5)
    for meaning in MEANINGS.values():
        assert f"# {meaning}" in text
    assert tomllib.loads(LAYERS.template()) == {}


def test_keys_are_set_where_they_stand() -> None:
    """A commented key is set in its place, an unknown one before the first table."""
    text = set_keys(LAYERS.template() + "\n" + toml_table("friends", {"name": "a"}), {"size": 4})
    text = set_keys(text, {"size": 5, "weight": 1})
    found = tomllib.loads(text)
    assert found == {"size": 5, "weight": 1, "friends": [{"name": "a"}]}
    assert text.index("# how much") < text.index("size = 5") < text.index("# who comes")


def test_a_number_in_a_variable_is_judged_as_one(tmp_path: Path) -> None:
    """It may be below zero; one that is too large is told its bound, not that it is a text."""
    home = tmp_path / "home"
    found = LAYERS.load(home, environment={LAYERS.variable("size"): "-5"}, flags={})
    assert found.settings.size == -5
    for text, why in (
        ("-6", ">= -5"),
        ("9" * 30, "<= 100"),
        ("five", "got `str`"),
        ("-", "got `str`"),
    ):
        with pytest.raises(ConfigError, match=why):
            LAYERS.load(home, environment={LAYERS.variable("size"): text}, flags={})


def test_a_file_may_begin_with_a_mark_of_its_editor(tmp_path: Path) -> None:
    """A byte order mark and lines that end in two characters are what some editors write."""
    (tmp_path / "node.toml").write_bytes(b'\xef\xbb\xbfcolour = "blue"\r\nsize = 7\r\n')
    assert load(tmp_path).settings == Few(colour="blue", size=7)


def test_a_variable_that_is_no_text_is_told(tmp_path: Path) -> None:
    """Bytes that are no UTF-8 are refused with the variable's name."""
    broken = {LAYERS.variable("colour"): "\udcff"}
    with pytest.raises(ConfigError, match="FEW_COLOUR") as caught:
        load(tmp_path, environment=broken)
    assert "no UTF-8" in caught.value.why
    assert load(tmp_path, environment={LAYERS.variable("colour"): "grün"}).settings.colour == "grün"
