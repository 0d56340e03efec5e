"""Commands are found by name, and only what a command needs is loaded for it."""

import importlib
import subprocess
import sys

import click
import pytest

from bench.machine import REPOSITORY
from engine.cli import main

KERNELS = ("numba", "pyarrow")


@pytest.mark.parametrize(("module", "names"), main.MODULES.items(), ids=main.MODULES)
def test_all_commands_are_listed(module: str, names: tuple[str, ...]) -> None:
    """What a module has is what the list says; the command bears the name."""
    there = importlib.import_module(f"engine.cli.{module}")
    found = {value.name for value in vars(there).values() if isinstance(value, click.Command)}
    groups = [value for value in vars(there).values() if isinstance(value, click.Group)]
    found -= {name for group in groups for name in group.commands}
    assert found == set(names)
    context = click.Context(main.commands)
    for name in names:
        assert main.commands.get_command(context, name) is getattr(there, name)


def test_no_other_command_is_found() -> None:
    """A name that nobody has is none."""
    context = click.Context(main.commands)
    assert main.commands.get_command(context, "nonsense") is None
    assert main.commands.list_commands(context) == sorted(main.commands.list_commands(context))


@pytest.mark.parametrize("command", ["balance", "send", "key", "config", "run"])
def test_kernels_are_loaded_only_where_they_are_used(command: str) -> None:
    """A wallet is there at once."""
    code = (
        "import sys; from engine.cli.main import main; main([sys.argv[1], '--help']);"
        f"sys.exit(bool({{*{KERNELS}}} & {{*sys.modules}}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, command],
        cwd=REPOSITORY, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Usage" in done.stdout
