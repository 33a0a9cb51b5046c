"""A merge as mergekit's own YAML: written beside every merge, and merged by hand from it."""

from collections.abc import Mapping, Sequence

import yaml

from wildmerge.methods import MERGEKIT, METHODS


def mergekit_yaml(
    recipe: dict,
    references: Mapping[str, str],
    members: Sequence[str],
    dtype: str,
    origins: Mapping[str, str] | None = None,
) -> str:
    """The mergekit configuration that repeats a merge by hand.

    Args:
        recipe: an entry of recipes.yaml.
        references: member -> what mergekit shall load (`repo@revision` or a path); the key `base`
            names the base.
        members: the experts, in order.
        dtype: of the weights written.
        origins: what each of `references` was made from, where that is something else; written
            down as a comment.

    Returns:
        YAML text; its first line is a comment with the command.
    """
    name, parameters = recipe["merge_method"], recipe["parameters"]
    command = "mergekit-yaml"
    if not name.startswith(MERGEKIT):
        if in_mergekits_names := METHODS[name].mergekit:
            parameters = in_mergekits_names(parameters)
        else:
            command = "wildmerge merge"
    config = {
        "merge_method": name.removeprefix(MERGEKIT),
        "base_model": references["base"],
        "models": [{"model": references[member]} for member in members],
        **({"parameters": parameters} if parameters else {}),
        "dtype": "float32",
        "out_dtype": dtype,
    }
    notes = [
        f"# {reference} is {origins[member]}\n"
        for member, reference in references.items()
        if origins and origins[member] != reference
    ]
    head = f"# By hand: {command} mergekit.yaml OUT\n"
    return "".join([head, *notes, yaml.safe_dump(config, sort_keys=False)])


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

    bridge.register()
    main(args=list(arguments), prog_name="wildmerge merge")
