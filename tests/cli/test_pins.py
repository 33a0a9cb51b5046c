"""requirements.lock follows pyproject.toml."""

import ast
import re
import sys
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from project import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LOCK = (ROOT / "requirements.lock").read_text().splitlines()


def test_every_line_is_one_exact_version():
    pins = [line for line in LOCK if not line.startswith("#")]
    assert len(pins) > 100
    for line in pins:
        assert re.fullmatch(r"[a-z0-9-]+==[\w.]+", line), line  # no address, digest or marker


def test_the_lock_is_within_what_the_project_asks_for():
    pins = dict(line.split("==") for line in LOCK if not line.startswith("#"))
    wanted = [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["dev"]]
    for requirement in map(Requirement, wanted):
        version = pins[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(version), f"{requirement}, locked is {version}"


def imported(file: Path) -> set[str]:
    """The top-level names that a module imports, inside functions too."""
    names = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names.add(node.module)
    return {name.split(".")[0] for name in names}


def test_what_is_imported_is_asked_for():
    """Direct dependencies are named, not had by way of another package."""
    scripts = [*(ROOT / "workflow/scripts").rglob("*.py")]
    files = [*(ROOT / "workflow/src").rglob("*.py"), *scripts]
    ours = {"wildmerge", *(path.stem for path in scripts)}
    names = set().union(*map(imported, files)) - ours - sys.stdlib_module_names
    asked = {canonicalize_name(Requirement(line).name) for line in PROJECT["dependencies"]}
    assert {canonicalize_name({"yaml": "pyyaml"}.get(name, name)) for name in names} <= asked
