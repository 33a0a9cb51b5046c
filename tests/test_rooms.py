"""The rooms of the package: what may import what, and through which door."""

import ast
from pathlib import Path

import pytest
from project import SOURCE

PACKAGE = SOURCE / "wildmerge"
# From below; a room imports only from rooms before it. Modules beside the rooms serve all of them.
ROOMS = [
    "tensors",
    "methods",
    "checkpoints",
    "sources",
    "study",
    "merging",
    "evaluation",
    "run",
    "analysis",
    "reporting",
    "cli",
]


def imports(path: Path):
    """(line, room, module in it) of every import from a room, those inside functions too."""
    here = path.relative_to(PACKAGE).parts[:-1]
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.ImportFrom):
            continue
        if node.level:
            parts = [*here[: len(here) - node.level + 1], *(node.module or "").split(".")]
        elif (node.module or "").startswith("wildmerge."):
            parts = node.module.split(".")[1:]
        else:
            continue
        parts = [part for part in parts if part]
        if parts and parts[0] in ROOMS:
            yield node.lineno, parts[0], parts[1:]


def files():
    for room in ROOMS:
        for path in sorted((PACKAGE / room).rglob("*.py")):
            yield room, path


def test_every_room_is_known():
    assert {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").exists()} == {*ROOMS}


def test_rooms_import_from_rooms_below_them():
    wrong = [
        f"{path.relative_to(PACKAGE)}:{line} imports {other}"
        for room, path in files()
        for line, other, _ in imports(path)
        if other != room and ROOMS.index(other) > ROOMS.index(room)
    ]
    assert wrong == []


def test_other_rooms_are_entered_by_their_face():
    wrong = [
        f"{path.relative_to(PACKAGE)}:{line} imports {other}.{'.'.join(module)}"
        for room, path in files()
        for line, other, module in imports(path)
        if other != room and module
    ]
    assert wrong == []


@pytest.mark.parametrize("path", sorted((PACKAGE.parents[1] / "scripts").glob("*.py")))
def test_scripts_enter_rooms_by_their_face(path):
    modules = [
        node.module
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("wildmerge.")
    ]
    assert [m for m in modules if m.split(".")[1] in ROOMS and m.count(".") > 1] == []
