"""The table of rooms in docs/architecture.md is an allow-list: no module imports what its room's row does not name.

And what grows too long to read is split.
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from rooms import Import, Tree, find_circle, read_table

ROOT = Path(__file__).resolve().parents[1]
LONGEST_FILE = 400
LONGEST_FUNCTION = 60
TABLE = """
Words before.

| room | what lives there | may import |
|---|---|---|
| `cli.py` | the command | `tools/`, `argparse` |
| `core/` | the ground floor | `torch` |
| `tools/` | what is built on it | `core/`, `rich.table` |
| `tools/deep/` | a room of its own | `core/`, `tools/` |

| another | table |
"""


@pytest.fixture(scope="module")
def tree() -> Tree:
    return Tree(ROOT / "fvs_ros", read_table((ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")))


def test_every_room_is_in_the_table_and_every_row_is_a_room(tree: Tree) -> None:
    assert tree.unlisted_rooms() == []
    assert tree.empty_rooms() == []


def test_rooms_import_only_what_the_table_allows(tree: Tree) -> None:
    violations = tree.violations()
    assert not violations, "not allowed by the table of rooms in docs/architecture.md:\n" + "\n".join(violations)


def test_no_rooms_import_each_other_in_a_circle(tree: Tree) -> None:
    assert tree.circle() == []


@pytest.mark.parametrize("folder", ["fvs_ros", "test"])
def test_no_file_and_no_function_is_too_long(folder: str) -> None:
    long = []
    for path in sorted((ROOT / folder).rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        if (lines := len(text.splitlines())) > LONGEST_FILE:
            long.append(f"{path}: {lines} lines of at most {LONGEST_FILE}")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or 0) - node.lineno + 1
                if lines > LONGEST_FUNCTION:
                    long.append(f"{path}:{node.lineno}: {node.name} has {lines} lines of at most {LONGEST_FUNCTION}")
    assert not long, "split where they read better:\n" + "\n".join(long)


def made_up(folder: Path, **modules: str) -> Tree:
    """A package of modules with that content, by their paths with `__` for `/`, under the table above."""
    package = folder / "house"
    files = {"cli": "", "core__a": "", "tools__a": "", "tools__deep__a": "", **modules}
    for name, content in files.items():
        path = package / Path(*name.split("__")).with_suffix(".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
    (package / "__init__.py").touch()
    return Tree(package, read_table(TABLE))


def test_the_table_is_read_to_its_end() -> None:
    rooms = read_table(TABLE)
    assert list(rooms) == ["cli.py", "core/", "tools/", "tools/deep/"]
    assert rooms["tools/"] == {"core/", "rich.table"}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("| no name | of a room | `torch` |", "no name"),
        ("| `two/` | cells |", "two/"),
        ("| `core/` | again | `torch` |", "each room once"),
    ],
)
def test_a_row_that_cannot_be_read_is_named(row: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_table(TABLE.replace("| `tools/` |", f"{row}\n| `tools/` |"))
    with pytest.raises(ValueError, match="no table with the columns"):
        read_table(TABLE.replace("may import", "imports"))


def test_a_tree_that_keeps_to_the_table(tmp_path: Path) -> None:
    tree = made_up(
        tmp_path,
        cli="import argparse\nimport json\nfrom house import __version__\nfrom house.tools.a import x\n",
        core__a="from torch import nn\nfrom house.core import b\n",
        core__b="import torch.nn.functional\n",
        tools__a="from rich.table import Table\nfrom house.core.a import y\n",
        tools__deep__a="from .. import a\nfrom house.core import a\n",
    )
    assert tree.violations() == tree.unlisted_rooms() == tree.empty_rooms() == tree.circle() == []


@pytest.mark.parametrize(
    ("module", "content", "expected"),
    [
        ("core__a", "import numpy as np\n", "house/core/a.py:1: core/ imports numpy"),
        ("core__a", "import argparse\n", "house/core/a.py:1: core/ imports argparse"),
        ("core__a", "\nfrom house.tools import a\n", "house/core/a.py:2: core/ imports house.tools.a"),
        ("core__a", "def f():\n    import rclpy\n", "house/core/a.py:2: core/ imports rclpy"),
        (
            "core__a",
            "if TYPE_CHECKING:\n    from house.tools.deep.a import x\n",
            "house/core/a.py:2: core/ imports house.tools.deep.a",
        ),
        ("core__a", "from ..tools.a import x\n", "house/core/a.py:1: core/ imports house.tools.a"),
        ("core__a", "import torchvision\n", "house/core/a.py:1: core/ imports torchvision"),
        ("core__a", "import_module('house.tools.a')\n", "house/core/a.py:1: core/ imports house.tools.a"),
        ("core__a", "importlib.import_module(f'house.tools.{x}')\n", "house/core/a.py:1: core/ imports house.tools"),
        ("core__a", "from house.msg import Moment\n", "house/core/a.py:1: core/ imports house.msg"),
        ("tools__a", "import rich\n", "house/tools/a.py:1: tools/ imports rich"),
        ("tools__a", "from house.tools.deep import a\n", "house/tools/a.py:1: tools/ imports house.tools.deep.a"),
        ("tools__a", "from house import cli\n", "house/tools/a.py:1: tools/ imports house.cli"),
        ("tools__low__a", "import rich\n", "house/tools/low/a.py:1: tools/ imports rich"),
        ("tools__deep__a", "import torch\n", "house/tools/deep/a.py:1: tools/deep/ imports torch"),
        ("other__a", "import torch\n", "house/other/a.py:1: no room imports torch"),
    ],
)
def test_an_import_that_no_row_allows_is_named(tmp_path: Path, module: str, content: str, expected: str) -> None:
    assert made_up(tmp_path, **{module: content}).violations() == [expected]


def test_a_room_without_a_row_and_a_row_without_a_room_are_named(tmp_path: Path) -> None:
    tree = made_up(tmp_path, attic__a="", helper="")
    assert tree.unlisted_rooms() == ["attic/", "helper.py"]
    (tmp_path / "house" / "core" / "a.py").unlink()
    (tmp_path / "house" / "tools" / "deep" / "a.py").unlink()
    assert Tree(tmp_path / "house", read_table(TABLE)).empty_rooms() == ["core/", "tools/deep/"]


def test_the_room_with_the_longest_name_wins(tmp_path: Path) -> None:
    tree = made_up(tmp_path)
    assert tree.room(Path("tools/deep/deeper/a.py")) == "tools/deep/"
    assert tree.room(Path("tools/other/a.py")) == "tools/"
    assert tree.room(Path("cli.py")) == "cli.py"
    assert tree.room(Path("attic/a.py")) == ""


def test_a_circle_between_rooms_is_found_but_for_a_folder_and_a_room_inside_it(tmp_path: Path) -> None:
    tree = made_up(tmp_path, tools__a="from house.tools.deep import a\n", tools__deep__a="from house.tools import a\n")
    assert tree.circle() == []
    tree = made_up(tmp_path, core__a="from house.tools.a import x\n", tools__a="from house.core.a import y\n")
    assert tree.circle() == ["core/", "tools/", "core/"]


def test_a_longer_circle_is_found() -> None:
    assert find_circle({"a": "bc", "b": "c", "c": "d", "d": ""}) == []
    assert find_circle({"a": "b", "b": "c", "c": "db", "d": ""}) == ["b", "c", "b"]


def test_an_import_knows_its_line(tmp_path: Path) -> None:
    tree = made_up(tmp_path, cli="import json\n\n\ndef f():\n    import argparse, torch\n")
    lines = [one for one in tree.imports() if one.target in ("argparse", "torch")]
    assert lines == [Import(Path("cli.py"), 5, "argparse"), Import(Path("cli.py"), 5, "torch")]
