"""What a recipe may say: its parameters and their ranges, from the schema of recipes.yaml."""

from functools import cache
from pathlib import Path
from typing import Literal

from .sheets import read_yaml, validate

SCHEMA = Path(__file__).parents[2] / "schemas" / "recipes.schema.yaml"

# The names in a recipe that stand for a method of mergekit's own begin so.
MERGEKIT = "mergekit/"


@cache
def _definitions() -> dict:
    return read_yaml(SCHEMA)["$defs"]


def check(recipe: dict) -> None:
    """Check a recipe as the workflow hands it over, with its `name`.

    Raises:
        WildmergeError: a key missing or unknown, a parameter that the method has not, or one out
            of its range.
    """
    entry = {key: value for key, value in recipe.items() if key != "name"}
    _check(entry, "recipe", f"Recipe {recipe.get('name', '')}")


def check_parameters(method: str, parameters: dict, where: str) -> None:
    """Check the parameters of one of this package's methods; raises as `check` does."""
    _check(parameters, method, f"{method} in {where}")


def _check(value: dict, definition: str, where: str) -> None:
    validate(value, {"$ref": f"#/$defs/{definition}", "$defs": _definitions()}, where)


def parameter_types(method: str) -> dict[str, type]:
    """Name -> Python type of a method's parameters: float, or a Literal of the words allowed."""
    types = {}
    for name in _definitions()[method].get("properties", {}):
        definition = _definitions()[name]
        types[name] = Literal[*definition["enum"]] if "enum" in definition else float
    return types
