"""A merge as mergekit's own YAML: written beside every merge, and merged by hand from it."""

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import yaml

from wildmerge.methods import MERGEKIT, METHODS


def mergekit_yaml(
    recipe: dict,
    references: Mapping[str, str],
    members: Sequence[str],
    dtype: str,
    origins: Mapping[str, str] | None = None,
    digests: Mapping[str, str] | None = None,
    bounds: Mapping[str, str] | None = None,
) -> str:
    """The mergekit configuration that repeats a merge by hand.

    Args:
        recipe: an entry of recipes.yaml.
        references: member -> what mergekit shall load (`repo@revision` or a path, relative to the
            folder that the YAML will lie in); the key `base` names the base.
        members: the experts, in order.
        dtype: of the weights written.
        origins: what each of `references` was made from, where that is something else; written
            down as a comment.
        digests: of the members' weights, for a method that is `salted`: beside each model.
        bounds: what such a method found of each member over the whole model, if it did.

    Returns:
        YAML text; its first line is a comment with the command.
    """
    name, parameters = recipe["merge_method"], recipe["parameters"]
    models: list[dict] = [{"model": references[member]} for member in members]
    command = "mergekit-yaml"
    if not name.startswith(MERGEKIT):
        method = METHODS[name]
        if method.mergekit:
            parameters = method.mergekit(parameters)
        else:
            command = "wildmerge merge"
        if method.salted:
            for member, model in zip(members, models, strict=True):
                own = {"digest": (digests or {})[member]}
                model["parameters"] = own | ({"bound": bounds[member]} if bounds else {})
    config = {
        "merge_method": name.removeprefix(MERGEKIT),
        "base_model": references["base"],
        "models": models,
        **({"parameters": parameters} if parameters else {}),
        "dtype": "float32",
        "out_dtype": dtype,
    }
    notes = [
        f"# {reference} is {origins[member]}\n"
        for member, reference in references.items()
        if origins and origins[member] != reference
    ]
    head = f"# By hand, in this folder: {command} mergekit.yaml OUT\n"
    return "".join([head, *notes, yaml.safe_dump(config, sort_keys=False)])


def moved(text: str, old: Path, new: Path) -> str:
    """A merge's YAML for another folder, without the notes on where its folders come from.

    Args:
        text: of `mergekit_yaml`.
        old: the folder that it lies in.
        new: the folder that it is copied to.
    """
    config = yaml.safe_load(text)

    def there(reference: str) -> str:
        local = (old / reference).exists()
        return os.path.relpath(old / reference, new) if local else reference

    config["base_model"] = there(config["base_model"])
    config["models"] = [entry | {"model": there(entry["model"])} for entry in config["models"]]
    head = text.splitlines(keepends=True)[0]
    return head + yaml.safe_dump(config, sort_keys=False)


def home_of_paths(path: Path) -> Path:
    """The folder from which the paths in a mergekit YAML lead to checkpoints.

    Args:
        path: of the YAML.

    Returns:
        The YAML's own folder, if one of its paths leads nowhere from here, and somewhere from
        there; else the folder in which the process runs.
    """
    here, own = Path.cwd(), path.absolute().parent
    for name in _references(yaml.safe_load(path.read_text(encoding="utf-8"))):
        if not (here / name).exists() and (own / name).exists():
            return own
    return here


def _references(value: object) -> Iterator[str]:
    """What a mergekit YAML loads, wherever it stands."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if key in ("model", "base_model") and isinstance(inner, str):
                yield inner
            else:
                yield from _references(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _references(inner)


def merge_by_yaml(arguments: Sequence[str]) -> None:
    """Merge by a mergekit YAML: mergekit's own command line, with this package's methods known.

    Args:
        arguments: of mergekit-yaml, such as `["mergekit.yaml", "OUT", "--quiet"]`.

    Raises:
        SystemExit: always, as command lines end: with 0 when the model is written.
        WildmergeError: a parameter is not allowed.
    """
    from mergekit.scripts.run_yaml import main

    from . import bridge

    bridge.register_methods()
    main(args=list(arguments), prog_name="wildmerge merge")
