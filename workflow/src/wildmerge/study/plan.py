"""A study as data: which subsets of checkpoints, merged by which recipes, scored on which suites.

Everything here is pure and needs the standard library alone.
"""

import hashlib
import itertools
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from math import comb
from typing import Any

from wildmerge import WildmergeError

IDENTITY = "identity"
BASE = "base"


@dataclass(frozen=True)
class Evaluation:
    """One model scored on one suite.

    `subset` is `base`, the name of a checkpoint, a draw such as `n04-07`, or a named group;
    `n` counts its members (0 for the base), `draw` counts the draws of one size from 1 (0 where
    nothing was drawn), `recipe` is `identity` where nothing was merged. `missing` says why the
    study goes on without it, "" where it does not.
    """

    base: str
    subset: str
    n: int
    draw: int
    members: tuple[str, ...]
    recipe: str
    suite: str
    missing: str = ""

    @property
    def is_merge(self) -> bool:
        """Whether checkpoints were merged to make the model."""
        return self.recipe != IDENTITY


def draws(members: Iterable[str], n: int, count: int, seed: int) -> list[tuple[str, ...]]:
    """Draw up to `count` distinct subsets of `n` members, uniformly, without a random generator.

    Try t ranks the members by sha256("seed/n/t/member") and takes the first n; a subset seen
    before is skipped. The draws are the same on every machine, in whatever order the members
    come, and nested: more draws keep the earlier ones. Where fewer than `count` subsets exist,
    all of them are returned.
    """
    return list(draws_without((), members, n, count, seed))


def draws_without(
    without: Collection[str], members: Iterable[str], n: int, count: int, seed: int
) -> dict[tuple[str, ...], int]:
    """Draw as `draws` does, but without some of the members.

    The others keep their ranks, so that a try that took none of those left out gives the same
    subset again.

    Returns:
        Each subset with its number, from 1, among the draws of all members; 0 where it is none of
        their first `count`.
    """
    members = sorted(members)
    wanted = min(count, comb(len(set(members) - set(without)), n))
    wanted_of_all = min(count, comb(len(members), n))
    numbers: dict[tuple[str, ...], int] = {}  # of the draws of all members
    subsets: dict[tuple[str, ...], None] = {}
    attempts = itertools.count()
    while len(subsets) < wanted or len(numbers) < wanted_of_all:
        attempt = next(attempts)
        ranks = {m: hashlib.sha256(f"{seed}/{n}/{attempt}/{m}".encode()).digest() for m in members}
        ranked = sorted(members, key=ranks.__getitem__)
        every = tuple(sorted(ranked[:n]))
        numbers.setdefault(every, len(numbers) + 1)
        if len(subsets) < wanted:
            subsets[tuple(sorted([m for m in ranked if m not in without][:n]))] = None
    return {subset: numbers.get(subset, 0) for subset in subsets}


def sweep_name(recipe: str, changed: dict) -> str:
    """Name a point of a sweep by what differs from its recipe: `ties-density0.3`."""
    return "-".join(
        [recipe]
        + [
            f"{key}_{value}" if isinstance(value, str) else f"{key}{value:g}"
            for key, value in sorted(changed.items())
        ]
    )


def study_recipes(study: dict, recipes: dict[str, dict], where: str) -> dict[str, dict]:
    """The recipes of a study by name, the points of its sweeps among them.

    A point whose parameters are the recipe's own is the recipe itself, so it is merged once.
    A point of a sweep says `of`, the recipe that it varies, and `changed`, the parameters that
    differ from that recipe's with their values.
    """
    chosen = {}
    sweeps = study.get("sweeps", [])
    for name in [*study.get("recipes", []), *(sweep["recipe"] for sweep in sweeps)]:
        if name not in recipes:
            raise WildmergeError(
                f"{where}: a recipe of config/recipes.yaml was expected, found {name!r}. "
                f"Known are {', '.join(recipes)}. Correct the name or add the recipe."
            )
    for name in study.get("recipes", []):
        chosen[name] = recipes[name] | {"name": name}
    for sweep in sweeps:
        recipe = recipes[sweep["recipe"]]
        own = recipe.get("parameters", {})
        for values in itertools.product(*sweep["parameters"].values()):
            point = dict(zip(sweep["parameters"], values, strict=True))
            for key in point.keys() - own.keys():
                raise WildmergeError(
                    f"{where}, sweep over {sweep['recipe']}: a parameter of the recipe was "
                    f"expected ({', '.join(own) or 'it has none'}), found {key!r}. Correct it."
                )
            changed = {key: value for key, value in point.items() if value != own[key]}
            name = sweep_name(sweep["recipe"], changed)
            if name in chosen and chosen[name]["parameters"] != own | changed:
                raise WildmergeError(
                    f"{where}, sweep over {sweep['recipe']}: values that differ in six digits were "
                    f"expected, since they name a point, found two that are both {name}. Drop one."
                )
            chosen[name] = recipe | {
                "name": name,
                "parameters": own | changed,
                "of": sweep["recipe"],
                "changed": changed,
            }
    return chosen


def pool(study: dict, models: list[dict], base: str, where: str) -> dict[str, dict]:
    """The checkpoints of a base that a study draws from: name -> row, in the sheet's order."""
    found, without = _listed(study, models, base, where), left_out(study, base)
    return {name: row for name, row in found.items() if name not in without}


def left_out(study: Mapping[str, Any], base: str) -> list[str]:
    """The checkpoints of a base that a study says it draws without."""
    entries = (entry.split("/") for entry in study.get("without", []))
    return [name for of, name in entries if of == base]


def _listed(study: dict, models: list[dict], base: str, where: str) -> dict[str, dict]:
    """The checkpoints that a study's `pool` or `models` gives, those of `without` among them."""
    rows = {row["model"]: row for row in models if row["base"] == base}
    if BASE not in rows:
        known = ", ".join(row["base"] for row in models if row["model"] == BASE)
        raise WildmergeError(
            f"{where}: a base of config/models.tsv was expected, found {base!r}. Known are "
            f"{known}. Correct the name or add a row whose model is `{BASE}`."
        )
    if "models" in study:
        for name in study["models"]:
            if name not in rows or name == BASE:
                raise WildmergeError(
                    f"{where}: a checkpoint of {base} in config/models.tsv was expected, found "
                    f"{name!r}. Correct the name in `models` or add its row."
                )
        return {name: rows[name] for name in study["models"]}
    found = {
        name: row
        for name, row in rows.items()
        if name != BASE and study["pool"] in row["pool"].split(";")
    }
    if not found:
        raise WildmergeError(
            f"{where}: checkpoints of {base} in pool {study['pool']!r} were expected, none was "
            "found in config/models.tsv. Correct `pool` in the study or in the sheet."
        )
    return found


def _prefix(study: dict) -> str:
    """What the names of a study's draws begin with, see the schema's `prefix`."""
    if "prefix" in study:
        return str(study["prefix"])
    if "models" in study:
        return f"m{_six_digits(study['models'])}-"
    return "" if study["pool"] == "wild" else f"{study['pool']}-"


def _six_digits(names: Iterable[str]) -> str:
    """Six digits that stand for some checkpoints, in whatever order."""
    return hashlib.sha256("/".join(sorted(names)).encode()).hexdigest()[:6]


def subsets(
    study: dict, checkpoints: dict[str, dict], base: str, where: str
) -> Iterator[tuple[str, int, tuple[str, ...]]]:
    """Yield (name, draw, members) of every subset of `checkpoints` that the study merges.

    A draw's name carries what differs from pool `wild` and seed 0, so that one name never
    means two things; what a list of `models` has in the place of a pool's name is the same for
    every study with that list. A study that draws without some checkpoints shares the draws that
    never held them, names and all; its others begin with `w` and six digits that stand for what
    is left out, and sizes that are too large without them are not drawn.
    """
    seed = study.get("seed", 0)
    prefix = _prefix(study) + (f"s{seed}-" if seed else "")
    without = left_out(study, base)
    again = f"w{_six_digits(without)}-" if without else ""
    every = [*checkpoints, *without]
    for n in study.get("sizes", []):
        if n > len(every) or min(study["sizes"]) > len(checkpoints):
            raise WildmergeError(
                f"{where}: sizes up to {len(checkpoints)} were expected, since so many "
                f"checkpoints of {base} are in the pool; found {n}. Drop that size or add "
                "checkpoints to config/models.tsv."
            )
        drawn = draws_without(without, every, n, study["draws"], seed)
        for i, (members, number) in enumerate(drawn.items(), start=1):
            name = f"{prefix}n{n:02d}-{number or i:02d}"
            yield name if number else again + name, i, members
    for name, group in study.get("groups", {}).items():
        members = tuple(
            sorted(m for m, row in checkpoints.items() if row["domain"] in group["domains"])
        )
        if len(members) < 2:
            raise WildmergeError(
                f"{where}, group {name!r}: at least two checkpoints of {base} with domain "
                f"{' or '.join(group['domains'])} were expected, found {len(members)}. Correct "
                "`domains` or the column `domain` of config/models.tsv."
            )
        yield name, 0, members


def plan(study: dict, models: list[dict], recipes: dict[str, dict], where: str) -> list[Evaluation]:
    """Every model that a study scores: the bases, the checkpoints alone, the merges.

    Arguments: `study`, one file of config/studies/; `models`, the rows of config/models.tsv;
    `recipes`, config/recipes.yaml; `where`, the study's name for messages. All recipes share the
    same subsets. Raises WildmergeError for names that do not exist and sizes that cannot be.
    """
    for entry in study.get("without", []):
        base, name = entry.split("/")
        known = _listed(study, models, base, where) if base in study["bases"] else {}
        if name not in known:
            has = f"Of {base} it has" if known else "Its bases are"
            raise WildmergeError(
                f"{where}, without: a checkpoint that the study would draw from was expected, "
                f"found {entry}. {has} {', '.join(known or study['bases'])}. Correct the name."
            )
    chosen = study_recipes(study, recipes, where)
    suites = study.get("suites", [])
    rows = []
    for base in study["bases"]:
        checkpoints = pool(study, models, base, where)
        drawn = list(subsets(study, checkpoints, base, where))
        rows += [Evaluation(base, BASE, 0, 0, (), IDENTITY, suite) for suite in suites]
        if study.get("singles", True):
            rows += [
                Evaluation(base, name, 1, 0, (name,), IDENTITY, suite)
                for name in checkpoints
                for suite in suites
            ]
        for name, draw, members in drawn:
            own = study.get("groups", {}).get(name, {}).get("suites", suites)
            rows += [
                Evaluation(base, name, len(members), draw, members, recipe, suite)
                for recipe in chosen
                for suite in own
            ]
    return rows
