"""What a recipe may say: the schema of recipes.yaml, made from the methods' declarations."""

from collections.abc import Mapping
from functools import cache
from typing import Any

from wildmerge.validation import validate

from ._method import Method

# The names in a recipe that stand for a method of mergekit's own begin so.
MERGEKIT = "mergekit/"

_MERGEKIT_PARAMETERS = {
    "description": "Parameters of a method of mergekit's own, by mergekit's names; each is given "
    "to every expert.",
    "type": "object",
    "additionalProperties": {"type": ["number", "boolean", "string"]},
}


def _parameters_schema(method: Method) -> dict[str, Any]:
    """The schema of a method's `parameters`."""
    return {
        "description": f"{method.label} ({method.reference}).",
        "type": "object",
        "additionalProperties": False,
        "required": [name for name, it in method.parameters.items() if it.default is None],
        "properties": {name: it.schema for name, it in method.parameters.items()},
    }


def _recipe_schema(methods: Mapping[str, Method]) -> dict[str, Any]:
    """The schema of one recipe: a merge method with all its choices made."""
    by_method = [
        ({"const": name}, _parameters_schema(method)) for name, method in methods.items()
    ] + [({"pattern": f"^{MERGEKIT}"}, _MERGEKIT_PARAMETERS)]
    return {
        "description": "A merge method with all its choices made.",
        "type": "object",
        "additionalProperties": False,
        "required": ["label", "merge_method", "parameters", "version"],
        "properties": {
            "label": {
                "description": "Its name in figures, tables and the report.",
                "type": "string",
                "minLength": 1,
            },
            "merge_method": {
                "description": "One of this project's methods "
                f"({', '.join(methods)}), or `{MERGEKIT}` and the name of any other method of "
                "mergekit, such as `mergekit/dare_ties`.",
                "anyOf": [
                    {"enum": list(methods)},
                    {"type": "string", "pattern": f"^{MERGEKIT}[a-z][a-z0-9_]*$"},
                ],
            },
            "parameters": {
                "description": "The method's parameters, all that have no default.",
                "type": "object",
            },
            "version": {
                "description": "Counts the changes of the method's code: raising it makes this "
                "recipe's merges again.",
                "type": "integer",
                "minimum": 1,
            },
        },
        "allOf": [
            {
                "if": {"properties": {"merge_method": condition}},
                "then": {"properties": {"parameters": parameters}},
            }
            for condition, parameters in by_method
        ],
    }


@cache
def schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of config/recipes.yaml: one entry a recipe, its key the name."""
    from . import METHODS

    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Merge recipes",
        "description": "config/recipes.yaml: one entry a recipe. An entry's key is the recipe's "
        "name in studies, paths and results.",
        "type": "object",
        "propertyNames": {"pattern": "^[a-z][a-z0-9_]*$"},
        "additionalProperties": _recipe_schema(METHODS),
    }


def check(recipe: Mapping[str, Any]) -> None:
    """Check a recipe as the workflow hands it over, with its `name`, and without a label.

    Raises:
        WildmergeError: a key missing or unknown, a parameter that the method has not, or one out
            of its range.
    """
    name = recipe.get("name", "")
    entry = {key: value for key, value in recipe.items() if key != "name"}
    validate({"label": name, **entry}, schema()["additionalProperties"], f"Recipe {name}")


def check_parameters(method: Method, parameters: Mapping[str, Any], where: str) -> None:
    """Check the parameters of one of this package's methods; raises as `check` does."""
    validate(dict(parameters), _parameters_schema(method), f"{method.name} in {where}")
