"""Settings: their order of precedence, where each came from, and what is refused, with its hint."""

import tomllib
from pathlib import Path

import pytest

from engine.config import KEYS, Config, Settings, load_config, template, variable
from kernels.backend import KNOWN_KEYS_MAX
from runtime.settings import FILE_BYTES_MAX, ConfigError, flag


def load(
    home: Path,
    text: str | None = None,
    environment: dict[str, str] | None = None,
    flags: dict[str, str | int | None] | None = None,
) -> Config:
    """Load with these three sources."""
    if text is not None:
        (home / "node.toml").write_text(text)
    return load_config(home, environment=environment or {}, flags=flags or {})


def test_defaults_hold_without_any_source(tmp_path: Path) -> None:
    """A home without a file has the defaults, and every key says so."""
    config = load(tmp_path)
    assert config.settings == Settings()
    assert set(config.origins.values()) == {"default"}
    assert tuple(config.origins) == KEYS


def test_a_flag_goes_before_the_environment_and_that_before_the_file(tmp_path: Path) -> None:
    """Each source hides the ones behind it, and the origin names the one that counts."""
    text = "keep_blocks = 1\nsnapshot_every = 1\nthreads = 1\n"
    environment = {"TOS_KEEP_BLOCKS": "2", "TOS_SNAPSHOT_EVERY": "2", "TOS_CACHE_DIR": "x"}
    config = load(tmp_path, text, environment, {"keep_blocks": 3, "device": None})
    settings = config.settings
    assert (settings.keep_blocks, settings.snapshot_every, settings.threads) == (3, 2, 1)
    assert config.origins["keep_blocks"] == "flag --keep-blocks"
    assert config.origins["snapshot_every"] == "environment TOS_SNAPSHOT_EVERY"
    assert config.origins["threads"] == str(tmp_path / "node.toml")
    assert config.origins["device"] == "default"


@pytest.mark.parametrize(
    ("text", "code", "words"),
    [
        ("keep_block = 1", "config.unknown_key", ["'keep_blocks'", "node.toml"]),
        ("zebra = 1", "config.unknown_key", ["the settings are"]),
        ("keep_blocks = -1", "config.value", ["keep_blocks", "node.toml"]),
        ("keep_blocks = '1'", "config.value", ["keep_blocks"]),
        ("keep_blocks = true", "config.value", ["keep_blocks"]),
        ("keep_blocks = 1.0", "config.value", ["keep_blocks"]),
        ("keep_blocks = 9223372036854775808", "config.value", ["keep_blocks"]),
        ("known_keys = -1", "config.value", ["known_keys"]),
        (f"known_keys = {KNOWN_KEYS_MAX + 1}", "config.value", ["known_keys"]),
        ("device = 'tpu'", "config.value", ["device", "auto, cpu, gpu"]),
        ("keep_blocks = ", "config.syntax", ["Invalid value"]),
        ("keep_blocks = 1\nkeep_blocks = 2", "config.syntax", ["overwrite"]),
        ("#" * (FILE_BYTES_MAX + 1), "config.size", [str(FILE_BYTES_MAX)]),
    ],
)
def test_a_bad_file_is_explained(tmp_path: Path, text: str, code: str, words: list[str]) -> None:
    """What is wrong in the file is refused with a stable code, the key, and what to do."""
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text)
    assert caught.value.code == code
    for word in [*words, str(tmp_path)]:
        assert word in str(caught.value)


def test_a_bad_file_is_refused_even_where_a_flag_hides_it(tmp_path: Path) -> None:
    """A file with a wrong value does not wait for the day on which the flag is left out."""
    with pytest.raises(ConfigError, match=r"node\.toml"):
        load(tmp_path, "keep_blocks = -1", flags={"keep_blocks": 1})


@pytest.mark.parametrize(
    ("environment", "code"),
    [
        ({"TOS_KEEP_BLOCK": "1"}, "config.unknown_key"),
        ({"TOS_KEEP_BLOCKS": "many"}, "config.value"),
        ({"TOS_KEEP_BLOCKS": "-1"}, "config.value"),
        ({"TOS_KEEP_BLOCKS": "9" * 100}, "config.value"),
        ({"TOS_DEVICE": "tpu"}, "config.value"),
    ],
)
def test_a_bad_variable_is_explained(
    tmp_path: Path, environment: dict[str, str], code: str
) -> None:
    """A misspelt variable or value is refused, and the variable is named."""
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, environment=environment)
    assert caught.value.code == code
    assert next(iter(environment)) in str(caught.value)


def test_a_file_that_was_named_must_be_there(tmp_path: Path) -> None:
    """node.toml may be missing; a file that somebody named may not."""
    with pytest.raises(ConfigError) as caught:
        load_config(tmp_path, file=tmp_path / "other.toml", environment={}, flags={})
    assert caught.value.code == "config.unreadable"


def test_the_template_explains_every_key_and_changes_nothing(tmp_path: Path) -> None:
    """The file that `init` writes equals the defaults, also when every comment is taken away."""
    assert load(tmp_path, template()).settings == Settings()
    settings = [line[2:] for line in template().splitlines() if " = " in line]
    assert tuple(tomllib.loads("\n".join(settings))) == KEYS
    assert load(tmp_path, "\n".join(settings)).settings == Settings()


def test_names_of_flags_and_variables() -> None:
    """A key has one flag and one variable."""
    assert flag("keep_blocks") == "--keep-blocks"
    assert variable("keep_blocks") == "TOS_KEEP_BLOCKS"
