"""What a recipe may say: its parameters and their ranges, from the schema of recipes.yaml."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

from wildmerge.study.sheets import read_yaml, validate

SCHEMA = Path(__file__).parents[3] / "schemas" / "recipes.schema.yaml"

# The names in a recipe that stand for a method of mergekit's own begin so.
MERGEKIT = "mergekit/"


@cache
def _definitions() -> dict:
    return read_yaml(SCHEMA)["$defs"]


def check(recipe: dict) -> None:
    """Check a recipe as the workflow hands it over, with its `name`.

    `of` and `changed`, which say what a point of a sweep varies, are left aside.

    Raises:
        WildmergeError: a key missing or unknown, a parameter that the method has not, or one out
            of its range.
    """
    entry = {key: value for key, value in recipe.items() if key not in ("name", "of", "changed")}
    _check(entry, "recipe", f"Recipe {recipe.get('name', '')}")


def check_parameters(method: str, parameters: dict, where: str) -> None:
    """Check the parameters of one of this package's methods; raises as `check` does."""
    _check(parameters, method, f"{method} in {where}")


def _check(value: dict, definition: str, where: str) -> None:
    validate(value, {"$ref": f"#/$defs/{definition}", "$defs": _definitions()}, where)


@dataclass(frozen=True)
class Parameter:
    """A method's parameter: its Python type, and its default unless it must be set."""

    kind: type
    required: bool
    default: float | None


def parameters_of(method: str) -> dict[str, Parameter]:
    """Name -> Parameter, for one of this package's methods."""
    found = {}
    required = _definitions()[method].get("required", [])
    for name in _definitions()[method].get("properties", {}):
        definition = _definitions()[name]
        kind = Literal[*definition["enum"]] if "enum" in definition else float
        found[name] = Parameter(kind, name in required, definition.get("default"))
    return found
