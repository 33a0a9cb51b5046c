"""Read YAML and hold it against a JSON Schema; light enough for a dry run."""

from pathlib import Path
from typing import Any

import jsonschema
import yaml

from . import WildmergeError


def validate(value: Any, schema: dict[str, Any], where: str) -> None:
    """Check a value against a schema.

    Args:
        value: what was read.
        schema: JSON Schema 2020-12.
        where: the file or thing that the value stands in, for messages.

    Raises:
        WildmergeError: with the first thing that the schema does not allow.
    """
    error = jsonschema.exceptions.best_match(
        jsonschema.Draft202012Validator(schema).iter_errors(value)
    )
    if error is None:
        return
    place = ".".join(str(part) for part in error.absolute_path)
    meaning = error.schema.get("description", "") if isinstance(error.schema, dict) else ""
    allowed = ""
    if error.validator == "additionalProperties" and isinstance(error.schema, dict):
        allowed = f" Known keys here: {', '.join(error.schema.get('properties', {}))}."
    raise WildmergeError(
        f"{where}{f', at {place}' if place else ''}: {error.message}."
        f"{f' Expected: {meaning}' if meaning else ''}{allowed} Correct it and run again."
    )


def read_yaml(path: Path) -> Any:
    """Read a YAML file; an empty one is an empty dict.

    Raises:
        WildmergeError: the file is missing, or is no YAML.
    """
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except FileNotFoundError:
        raise WildmergeError(
            f"{path}: this file was expected and is not there. Restore it or copy the project's."
        ) from None
    except yaml.YAMLError as error:
        raise WildmergeError(f"{path}: valid YAML was expected: {error}. Correct it.") from None
