"""Checkpoints and merges that a study goes on without, and the ways on that a person has."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from wildmerge import WildmergeError

from .plan import BASE, Evaluation


def mark_missing(
    rows: Iterable[Evaluation], study: Mapping[str, Any], where: str
) -> list[Evaluation]:
    """Say of each evaluation of a study why it is missing, where the study's YAML says so.

    Args:
        rows: as planned.
        study: its YAML; `missing` has a reason for each `base/checkpoint`, which stands for all
            that holds it, and for each `base/subset/recipe`.
        where: the study's file, for messages.

    Raises:
        WildmergeError: a name that the study does not plan, a base, or nothing left to compare.
    """
    rows, reasons = list(rows), dict(study.get("missing", {}))
    known = {f"{e.base}/{m}" for e in rows for m in e.members}
    known |= {f"{e.base}/{e.subset}/{e.recipe}" for e in rows if e.subset != BASE}
    for name in reasons:
        if name not in known:
            raise WildmergeError(
                f"{where}, missing: a checkpoint BASE/CHECKPOINT or a merge BASE/SUBSET/RECIPE of "
                f"the study was expected, found {name}. Correct the name, or drop the line."
            )
    marked = [replace(e, missing=_why(e, reasons)) for e in rows]
    if reasons and not any(e.is_merge and not e.missing for e in marked):
        raise WildmergeError(
            f"{where}, missing: one merge at least was expected that is not missing, found none of "
            f"{sum(e.is_merge for e in rows)}. Drop a line, or draw again by `without`."
        )
    return marked


def _why(e: Evaluation, reasons: Mapping[str, str]) -> str:
    """Why a model is missing; "" where it is not."""
    named = [(f"{e.base}/{m}", f"it holds {m}" if e.is_merge else "missing") for m in e.members]
    named.append((f"{e.base}/{e.subset}/{e.recipe}", "missing"))
    return "; ".join(f"{what} ({reasons[name]})" for name, what in named if name in reasons)


def missing_checkpoints(study: Mapping[str, Any], base: str) -> list[str]:
    """The checkpoints of a base that a study goes on without."""
    names = (name.split("/") for name in study.get("missing", {}))
    return [name[1] for name in names if len(name) == 2 and name[0] == base]


def ways_on(checkpoints: Iterable[str], study: str = "STUDY") -> str:
    """What a person can do about checkpoints that can't be used, as a sentence.

    Args:
        checkpoints: their names, base/checkpoint.
        study: the name of the study that needs them.
    """
    named = [name for name in checkpoints if name.split("/")[1] != BASE]
    if not named:
        return ""
    return (
        "A study goes on in one of three ways: name other checkpoints in these rows of "
        f"config/models.tsv; or write `without: [{', '.join(named)}]` into "
        f"config/studies/{study}.yaml, and its subsets are drawn again without them; or write "
        f"`missing: {{{', '.join(f'{name}: why' for name in named)}}}` there (`wildmerge missing "
        f"{study}` does), and its tables are made from what there is."
    )
