"""The sources of checkpoints that there are: the classes in the public modules of this folder."""

import inspect
from functools import cache
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules

from wildmerge import WildmergeError

from ._source import Source


@cache
def known_sources() -> dict[str, Source]:
    """All sources, prefix -> source, found by listing this folder.

    Raises:
        WildmergeError: two of them have the same prefix.
    """
    known: dict[str, Source] = {}
    names = [module.name for module in iter_modules([str(Path(__file__).parent)])]
    for name in sorted(name for name in names if not name.startswith("_")):
        module = import_module(f"{__package__}.{name}")
        for _, found in inspect.getmembers(module, inspect.isclass):
            if not issubclass(found, Source) or found.__module__ != module.__name__:
                continue
            if found.prefix in known:
                raise WildmergeError(
                    f"{module.__file__}: a prefix of its own was expected for {found.__name__}, "
                    f"found {found.prefix!r}, which {type(known[found.prefix]).__name__} has "
                    "already. Give one of the two another prefix."
                )
            known[found.prefix] = found()
    return known


def source_of(repo: str) -> Source:
    """The source of a cell `repo` of models.tsv, or of a reference `repo@revision`, by its prefix.

    Raises:
        WildmergeError: no source has that prefix.
    """
    name, colon, _ = repo.partition(":")
    prefix = name + colon if colon else ""
    known = known_sources()
    if prefix not in known:
        raise WildmergeError(
            f"a source of checkpoints was expected in `repo`, found {repo!r}. Known are "
            f"{'; '.join(source.form for source in known.values())}. Correct the prefix."
        )
    return known[prefix]


def check_source(row: dict[str, str], where: str) -> None:
    """Hold a row of models.tsv against what its source expects.

    Args:
        row: the row, all values text.
        where: its place, for the message.

    Raises:
        WildmergeError: no source has its prefix, or its cells have another form.
    """
    try:
        source = source_of(row["repo"])
    except WildmergeError as error:
        raise WildmergeError(f"{where}, at repo: {error}") from None
    source.check(row, where)
