"""Read YAML and hold it against a JSON Schema; light enough for a dry run."""

import math
import sys
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import jsonschema
import yaml

from . import WildmergeError

_LARGEST = sys.float_info.max


def _is_number(_: object, value: object) -> bool:
    """A finite number: YAML also knows .inf and .nan, and reads 1.0e+400 as the former."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return -_LARGEST <= value <= _LARGEST


def _is_integer(_: object, value: object) -> bool:
    """A whole number written as one: 2.0 would reach Python as a float."""
    return isinstance(value, int) and not isinstance(value, bool)


_Validator = jsonschema.validators.extend(
    jsonschema.Draft202012Validator,
    type_checker=jsonschema.Draft202012Validator.TYPE_CHECKER.redefine_many(
        {"number": _is_number, "integer": _is_integer}
    ),
)


def validate(value: Any, schema: dict[str, Any], where: str) -> None:
    """Check a value against a schema.

    Args:
        value: what was read.
        schema: JSON Schema 2020-12; its numbers are finite, and its integers are written as such.
        where: the file or thing that the value stands in, for messages.

    Raises:
        WildmergeError: with the first thing that the schema does not allow.
    """
    error = jsonschema.exceptions.best_match(_Validator(schema).iter_errors(value))
    if error is None:
        return
    place = ".".join(str(part) for part in error.absolute_path)
    meaning = _meaning(error, schema)
    allowed = ""
    if error.validator == "additionalProperties" and isinstance(error.schema, dict):
        allowed = f" Known keys here: {', '.join(error.schema.get('properties', {}))}."
    raise WildmergeError(
        f"{where}{f', at {place}' if place else ''}: {_said(error)}."
        f"{f' Expected: {meaning}' if meaning else ''}{allowed} Correct it and run again."
    )


def _meaning(error: jsonschema.ValidationError, schema: Any) -> str:
    """What the schema says of the place of an error, or else of the nearest place around it."""
    if isinstance(error.schema, dict) and "description" in error.schema:
        return str(error.schema["description"])
    found = ""
    for step in error.absolute_schema_path:
        try:
            schema = schema[step]
        except (KeyError, IndexError, TypeError):  # below a reference to another place
            break
        if isinstance(schema, dict) and isinstance(said := schema.get("description"), str):
            found = said
    return found


def _said(error: jsonschema.ValidationError) -> str:
    """What is wrong, in a sentence without its full stop."""
    value = error.instance
    if error.validator in ("minProperties", "minItems") and not value:
        return "at least one entry was expected, found none"
    if error.validator == "const":
        wanted = repr(error.validator_value) if error.validator_value else "nothing"
        return f"{wanted} was expected, found {value!r}"
    if error.validator != "type":
        return str(error.message)
    if isinstance(value, float) and error.validator_value == "integer":
        return f"a whole number without a point was expected, found {value!r}"
    if isinstance(value, float) and not math.isfinite(value):
        return f"a finite number was expected, found {value!r}"
    if isinstance(value, int) and not _is_number(None, value) and not isinstance(value, bool):
        return f"a finite number was expected, found a whole one of {len(str(value))} digits"
    if isinstance(value, str) and error.validator_value == "number" and _looks_numeric(value):
        return (
            f"a number was expected, found the text {value!r}; YAML reads it as 1.0e-5 is written"
        )
    if value is None:
        return "a value was expected, found nothing"
    return str(error.message)


def _looks_numeric(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


class _Loader(yaml.SafeLoader):
    """YAML in which a key stands once."""


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Hashable, Any]:
    seen: dict[str, int] = {}
    for key, _ in node.value:
        line = key.start_mark.line + 1
        if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
            if key.value in seen:
                raise yaml.constructor.ConstructorError(
                    None,
                    None,
                    f"the key {key.value!r} was expected once, found in lines {seen[key.value]} "
                    f"and {line}",
                    key.start_mark,
                )
            seen[key.value] = line
    loader.flatten_mapping(node)
    return loader.construct_mapping(node, deep=True)


_Loader.add_constructor("tag:yaml.org,2002:map", _mapping)


def read_text(path: Path) -> str:
    """Read a sheet.

    Raises:
        WildmergeError: the file is missing, is a folder, or is not UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except (FileNotFoundError, IsADirectoryError):
        raise WildmergeError(
            f"{path}: this file was expected and is not there. Restore it or copy the project's."
        ) from None
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise WildmergeError(
            f"{path}, line {line}: text in UTF-8 was expected, found the byte "
            f"0x{error.object[error.start]:02x} (an accent in Latin-1, perhaps). Save the file as "
            "UTF-8 and run again."
        ) from None


def read_yaml(path: Path) -> Any:
    """Read a YAML file; an empty one is an empty dict.

    Raises:
        WildmergeError: the file is missing, is no UTF-8, is no YAML, or names a key twice.
    """
    text = read_text(path)
    try:
        value = yaml.load(text, _Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise WildmergeError(
            f"{path}{place}: valid YAML was expected: {error.problem}. Correct it and run again."
        ) from None
    except (yaml.YAMLError, ValueError) as error:
        said = " ".join(str(error).split())
        raise WildmergeError(f"{path}: valid YAML was expected: {said}. Correct it.") from None
    return {} if value is None else value
