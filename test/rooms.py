"""Reads the table of rooms in docs/architecture.md, and what the modules of a tree import."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

HEADER = ("room", "what lives there", "may import")
# Allowed everywhere; argparse belongs to the command line and is listed like a package.
STANDARD_LIBRARY = frozenset(sys.stdlib_module_names) - {"argparse"}

Rooms = Mapping[str, frozenset[str]]
"""What each room may import, by its name: `memory/` for a folder, `cli.py` for a module."""


@dataclass(frozen=True)
class Import:
    """One import, wherever in a file it stands.

    Attributes:
        file: relative to the package.
        line: in that file.
        target: the dotted module.
    """

    file: Path
    line: int
    target: str


def read_table(text: str) -> Rooms:
    """The rows of the table of rooms.

    Raises:
        ValueError: there is no such table, a row has another number of cells, or a room comes twice.
    """
    lines = iter(text.splitlines())
    if not any(_cells(line) == HEADER for line in lines):
        raise ValueError(f"no table with the columns {' | '.join(HEADER)}")
    next(lines)
    rooms: dict[str, frozenset[str]] = {}
    for line in lines:
        if not line.startswith("|"):
            break
        cells = _cells(line)
        names = re.findall("`([^`]+)`", cells[0])
        if len(cells) != len(HEADER) or len(names) != 1 or names[0] in rooms:
            raise ValueError(f"the row is not a room, its content and its imports, each room once: {line}")
        rooms[names[0]] = frozenset(re.findall("`([^`]+)`", cells[2]))
    return rooms


def _cells(line: str) -> tuple[str, ...]:
    return tuple(cell.strip() for cell in line.strip().strip("|").split("|"))


class Tree:
    """The modules of a package, and the rooms that they live in.

    Args:
        package: its folder, which bears its name.
        rooms: of `read_table`.
    """

    def __init__(self, package: Path, rooms: Rooms) -> None:
        self._package = package
        self._rooms = rooms
        self._files = sorted(path.relative_to(package) for path in package.rglob("*.py"))
        self._modules = {self._dotted(file) for file in self._files}

    def unlisted_rooms(self) -> list[str]:
        """Folders and modules directly in the package that have no row; the package's own `__init__.py` needs none."""
        top = {f"{file.parts[0]}/" if len(file.parts) > 1 else file.name for file in self._files}
        return sorted(top - self._rooms.keys() - {"__init__.py"})

    def empty_rooms(self) -> list[str]:
        """Rows without a module."""
        return sorted(self._rooms.keys() - {self.room(file) for file in self._files})

    def room(self, file: Path) -> str:
        """The listed room with the longest name that holds the file; "" for none."""
        names = [file.name] if len(file.parts) == 1 else [f"{parent.as_posix()}/" for parent in file.parents]
        return next((name for name in names if name in self._rooms), "")

    def imports(self) -> Iterator[Import]:
        """Every import of every module: at its top, inside functions, for type checking, by `import_module`."""
        for file in self._files:
            for node in ast.walk(ast.parse((self._package / file).read_text(encoding="utf-8"))):
                for target in dict.fromkeys(self._targets(node, file)):
                    yield Import(file, getattr(node, "lineno", 0), target)

    def needed(self, one: Import) -> str:
        """What the table must allow for this import: a room, an external module, or "" where nothing is needed."""
        top = one.target.partition(".")[0]
        if top != self._package.name:
            return "" if top in STANDARD_LIBRARY else one.target
        if one.target == top:
            return ""
        if one.target not in self._modules:
            # Generated elsewhere, as ROS interfaces are.
            return one.target
        target = self._file(one.target)
        room = self.room(target) or str(target)
        return "" if room == self.room(one.file) else room

    def violations(self) -> list[str]:
        """`file:line: imports target` for every import that the table does not allow."""
        found = []
        for one in self.imports():
            needed, room = self.needed(one), self.room(one.file)
            if needed and not _allows(self._rooms.get(room, frozenset()), needed):
                found.append(f"{self._package.name}/{one.file}:{one.line}: {room or 'no room'} imports {one.target}")
        return found

    def circle(self) -> list[str]:
        """Rooms that import each other in a circle, or nothing. A folder and a room inside it may do so."""
        edges: dict[str, set[str]] = {}
        for one in self.imports():
            room, needed = self.room(one.file), self.needed(one)
            if needed in self._rooms and not room.startswith(needed) and not needed.startswith(room):
                edges.setdefault(room, set()).add(needed)
        return find_circle(edges)

    def _targets(self, node: ast.AST, file: Path) -> Iterator[str]:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = (self._package.name, *file.parent.parts)
                base = ".".join((*parents[: len(parents) - node.level + 1], *filter(None, [base])))
            for alias in node.names:
                module = f"{base}.{alias.name}"
                yield module if module in self._modules else base
        elif isinstance(node, ast.Call) and node.args and ast.unparse(node.func).endswith("import_module"):
            # The constant beginning of an f-string names at least the package.
            name = node.args[0].values[0] if isinstance(node.args[0], ast.JoinedStr) else node.args[0]
            if isinstance(name, ast.Constant) and isinstance(name.value, str):
                yield name.value.rstrip(".")

    def _dotted(self, file: Path) -> str:
        parts = file.with_suffix("").parts
        return ".".join((self._package.name, *(parts[:-1] if parts[-1] == "__init__" else parts)))

    def _file(self, module: str) -> Path:
        path = Path(*module.split(".")[1:])
        return path / "__init__.py" if (self._package / path).is_dir() else path.with_suffix(".py")


def _allows(allowed: Iterable[str], needed: str) -> bool:
    return any(needed == one or needed.startswith(f"{one}.") for one in allowed)


def find_circle(edges: Mapping[str, Iterable[str]]) -> list[str]:
    """The nodes of one circle in order, the first one again at its end; nothing where there is none."""
    done: set[str] = set()

    def visit(node: str, path: list[str]) -> list[str]:
        if node in path:
            return [*path[path.index(node) :], node]
        if node in done:
            return []
        for following in sorted(edges.get(node, ())):
            if circle := visit(following, [*path, node]):
                return circle
        done.add(node)
        return []

    for node in sorted(edges):
        if circle := visit(node, []):
            return circle
    return []
