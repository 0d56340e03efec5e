"""Mechanical claims about the tree: sizes, words, arithmetic and what the documents promise."""

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
LINES_MAX = 500
FUNCTION_LINES_MAX = 60

INTEGERS_ONLY = ("kernels", "engine", "consensus")
"""Packages whose results other nodes must reproduce bit for bit."""

MAY_DIVIDE: frozenset[str] = frozenset()
"""Files of those packages that only measure or report; each needs a reason here."""

# Words are put together here so that this file does not find itself.
STUBS = re.compile(
    "|".join(("TO" + "DO", "FIX" + "ME", "XX" + "X", "NotImplemented" + "Error", "pragma: " + "no"))
)
PLACES = re.compile(
    r"(?<![\w.])/(?:work|farm|home/\w+|root|Users/\w+|mnt)/"
    r"|://[^\s/]*(?:pypi|pythonhosted|npmjs|debian\.org)"
)
SKIPPED_FOLDERS = {"build", "dist", "node_modules", "__pycache__"}
TEXT_SUFFIXES = {".py", ".md", ".toml", ".lock", ".json", ".txt", ".cfg", ".yaml", ".yml", ""}


def files(*suffixes: str) -> list[Path]:
    """Return the files of the tree with one of the suffixes, without what tools leave behind."""
    found: list[Path] = []
    folders = [REPOSITORY]
    while folders:
        for path in sorted(folders.pop().iterdir()):
            if path.is_dir():
                hidden = path.name.startswith(".") and path.name != ".ci"
                if not hidden and path.name not in SKIPPED_FOLDERS:
                    folders.append(path)
            elif path.suffix in suffixes and path.name != ".git":  # a file in a linked worktree
                found.append(path)
    return found


def name(path: Path) -> str:
    """Return a path as people write it."""
    return path.relative_to(REPOSITORY).as_posix()


PYTHON_FILES = files(".py")
TEXT_FILES = files(*TEXT_SUFFIXES)
SETTINGS: dict[str, Any] = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())


def tree(path: Path) -> ast.Module:
    """Return the syntax tree of a file."""
    return ast.parse(path.read_text(), filename=str(path))


@pytest.mark.parametrize("path", PYTHON_FILES, ids=name)
def test_files_are_short(path: Path) -> None:
    """No module is longer than 500 lines; tables of constants are marked by their name."""
    if not path.stem.endswith("_table"):
        assert len(path.read_text().splitlines()) <= LINES_MAX


@pytest.mark.parametrize("path", PYTHON_FILES, ids=name)
def test_functions_are_short(path: Path) -> None:
    """No function outside the tests is longer than 60 lines, its docstring included."""
    if path.is_relative_to(REPOSITORY / "tests"):
        return
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            lines = node.end_lineno - node.lineno + 1
            assert lines <= FUNCTION_LINES_MAX, f"{node.name}: {lines} lines"


@pytest.mark.parametrize("path", PYTHON_FILES, ids=name)
def test_nothing_is_a_stub(path: Path) -> None:
    """No code is left for later, and no error is swallowed without a word."""
    found = STUBS.search(path.read_text())
    assert found is None, f"{found.group()} in {name(path)}"
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.ExceptHandler):
            assert not (len(node.body) == 1 and isinstance(node.body[0], ast.Pass)), (
                f"line {node.lineno}: an error is swallowed; use contextlib.suppress and say why"
            )


def inexact(module: ast.Module) -> Iterator[tuple[int, str]]:
    """Yield the line and the kind of everything that makes or names a float."""
    for node in ast.walk(module):
        if isinstance(node, ast.Constant) and isinstance(node.value, float | complex):
            yield node.lineno, f"literal {node.value}"
        elif isinstance(node, ast.BinOp | ast.AugAssign) and isinstance(node.op, ast.Div):
            if not (isinstance(node, ast.BinOp) and is_path(node)):
                yield node.lineno, "true division"
        elif isinstance(node, ast.Name) and node.id == "float":
            yield node.lineno, "float"
        elif isinstance(node, ast.Attribute) and re.fullmatch(r"float\d+|double", node.attr):
            yield node.lineno, node.attr


def is_path(node: ast.BinOp) -> bool:
    """Say whether a division joins a path: some operand is a string or is named like a path."""
    for side in (node.left, node.right):
        if isinstance(side, ast.BinOp) and isinstance(side.op, ast.Div) and is_path(side):
            return True
        if isinstance(side, ast.JoinedStr):
            return True
        if isinstance(side, ast.Constant) and isinstance(side.value, str):
            return True
        if isinstance(side, ast.Name) and re.search("path|folder|root|director", side.id):
            return True
    return False


@pytest.mark.parametrize(
    "path", [path for path in PYTHON_FILES if name(path).split("/")[0] in INTEGERS_ONLY], ids=name
)
def test_consensus_computes_with_integers(path: Path) -> None:
    """What nodes must agree on has no float: no literal, no true division, no float type."""
    if name(path) not in MAY_DIVIDE:
        assert list(inexact(tree(path))) == []


@pytest.mark.parametrize(
    ("source", "count"),
    [
        ("a = 1.0", 1),
        ("a = b / c", 1),
        ("a /= b", 1),
        ("a = float(b)", 1),
        ("a = np.float64(b)", 1),
        ("a = b // c", 0),
        ("a = folder / key", 0),
        ("a = x / 'spec' / y", 0),
    ],
)
def test_the_search_for_floats_finds_them(source: str, count: int) -> None:
    """The check above sees every way to make a float, and leaves paths alone."""
    assert len(list(inexact(ast.parse(source)))) == count


@pytest.mark.parametrize("path", TEXT_FILES, ids=name)
def test_no_machine_is_named(path: Path) -> None:
    """No file names a folder of somebody's machine, or the host of a package index."""
    found = PLACES.search(path.read_text())
    assert found is None, f"{found.group()} in {name(path)}"


def anchors(page: Path) -> set[str]:
    """Return what can stand behind `#` in a reference to a page of the specification."""
    titles = re.findall(r"^#+ (.*)$", page.read_text(), flags=re.MULTILINE)
    return {re.sub(r"[^a-z0-9_ -]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("path", files(".py", ".md"), ids=name)
def test_references_to_the_specification_lead_somewhere(path: Path) -> None:
    """Every page and heading of `spec/` that code or a page names exists."""
    for page, anchor in re.findall(r"spec/(\w+\.md)(?:#([\w-]+))?", path.read_text()):
        assert (REPOSITORY / "spec" / page).is_file(), page
        assert not anchor or anchor in anchors(REPOSITORY / "spec" / page), f"{page}#{anchor}"
    if path.parent.name == "spec":
        for page, anchor in re.findall(r"\]\((\w+\.md)(?:#([\w-]+))?\)", path.read_text()):
            assert not anchor or anchor in anchors(path.parent / page), f"{page}#{anchor}"


def makefile_targets() -> set[str]:
    """Return what `make` can be asked for."""
    text = (REPOSITORY / "Makefile").read_text()
    return set(re.findall(r"^([a-z][a-z-]*):(?!=)", text, flags=re.MULTILINE))


@pytest.mark.parametrize(
    "path",
    [path for path in files(".md") if path.parent in (REPOSITORY, REPOSITORY / "bench")],
    ids=name,
)
def test_documents_name_what_exists(path: Path) -> None:
    """Every `make` target and every script that a document tells people to type exists."""
    code = re.findall(r"```.*?```|`[^`\n]+`|^ {4}[^\n]*", path.read_text(), flags=re.DOTALL | re.M)
    text = "\n".join(code)
    targets = set(re.findall(r"(?:^|[\s`;&])make ([a-z][a-z-]*)", text))
    assert targets <= makefile_targets()
    for script in re.findall(r"python(?:3[.\d]*)? ((?:[a-z_]+/)+[a-z_0-9]+\.py)", text):
        assert (REPOSITORY / script).is_file(), f"{script} does not exist"
    ours = r"python(?:3[.\d]*)? -m ((?:kernels|engine|consensus|bench)[\w.]*)"
    for module in re.findall(ours, text):
        base = REPOSITORY / module.rstrip(".").replace(".", "/")
        assert base.with_suffix(".py").is_file() or (base / "__main__.py").is_file(), module


@pytest.mark.parametrize("name_", ["requirements.lock", "requirements-gpu.lock"])
def test_the_locks_name_no_index(name_: str) -> None:
    """A lock works with any package index: it has hashes and no addresses."""
    lock = (REPOSITORY / name_).read_text()
    assert "://" not in lock
    assert "index-url" not in lock
    requirements = re.findall(r"^[a-z0-9].*", lock, flags=re.MULTILINE)
    assert requirements
    assert all(line.endswith("\\") for line in requirements), "a requirement without a hash"


def test_figures_have_files() -> None:
    """Every file of figures is named beside them, and what is named there is kept."""
    folder = REPOSITORY / "bench" / "results"
    text = (REPOSITORY / "bench" / "README.md").read_text()
    assert set(re.findall(r"results/(\w+\.json)", text)) == {p.name for p in folder.glob("*.json")}


def test_links_between_documents_lead_somewhere() -> None:
    """Every file that a page links to exists, and has the heading that is named."""
    for path in (REPOSITORY / "README.md", REPOSITORY / "bench" / "README.md"):
        links = re.findall(r"\]\(([^)#\s]*)(?:#([\w-]+))?\)", path.read_text())
        assert links
        for place, anchor in links:
            page = path.parent / place if place else path
            assert page.exists(), f"{name(path)}: {place}"
            assert not anchor or anchor in anchors(page), f"{name(path)}: {place}#{anchor}"


def locked(name_: str) -> dict[str, str]:
    """Return package -> version of a lock."""
    lock = (REPOSITORY / name_).read_text()
    return dict(re.findall(r"^([a-z0-9-]+)==([^ ]+)", lock, flags=re.MULTILINE))


def test_the_locks_cover_every_dependency() -> None:
    """Every dependency, also the builder, stands in the lock; what a GPU needs, in its own."""
    project = SETTINGS["project"]
    extras = project["optional-dependencies"]
    ordinary = [*project["dependencies"], *SETTINGS["build-system"]["requires"]]
    ordinary += [item for name_ in sorted(set(extras) - {"gpu"}) for item in extras[name_]]
    plain, gpu = (
        {re.split(r"[<>=~;\[ ]", item)[0] for item in wanted}
        for wanted in (ordinary, extras["gpu"])
    )
    lock, lock_of_gpu = locked("requirements.lock"), locked("requirements-gpu.lock")
    assert plain <= set(lock)
    assert plain | gpu <= set(lock_of_gpu)
    assert not gpu & set(lock), "a node without a GPU installs nothing for one"
    assert lock.items() <= lock_of_gpu.items(), "both hold the same versions of what they share"


def test_every_package_is_installed_typed_and_kept_apart() -> None:
    """A top-level package is in the wheel, under mypy and under the import contracts."""
    packages = {path.parent.name for path in REPOSITORY.glob("*/__init__.py")}
    installed = set(SETTINGS["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"])
    assert packages - {"tests"} == installed
    assert set(SETTINGS["tool"]["mypy"]["packages"]) == packages
    assert set(SETTINGS["tool"]["importlinter"]["root_packages"]) == installed
