"""Read the sheets of config/ and hold them against their schemas; light enough for a dry run."""

import csv
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wildmerge import WildmergeError, methods
from wildmerge.sources import LOCK, apply_lock, check_source, read_lock
from wildmerge.study import catalogue
from wildmerge.study.plan import BASE, Evaluation, plan, study_recipes
from wildmerge.validation import read_yaml, validate


def read_rows(path: Path) -> list[dict]:
    """Read models.tsv as it is: one dict a row, all values text."""
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file, delimiter="\t", restval=""))


def read_models(path: Path, schema: dict) -> list[dict]:
    """Read models.tsv: one dict a row, all values text; rows are checked, names are unique."""
    rows = read_rows(path)
    seen: dict[tuple[str, str], int] = {}
    for line, row in enumerate(rows, start=2):
        where = f"{path}, line {line}"
        if None in row:
            raise WildmergeError(
                f"{where}: as many columns as the header has were expected, found more: "
                f"{row[None]!r}. Columns are divided by single tabs."
            )
        validate(row, schema, where)
        check_source(row, where)
        key = row["base"], row["model"]
        if key in seen:
            raise WildmergeError(
                f"{where}: a name that is its own was expected, found {row['base']}/"
                f"{row['model']}, which line {seen[key]} has already. Rename one of the two."
            )
        seen[key] = line
    for row in rows:
        if (row["base"], BASE) not in seen:
            raise WildmergeError(
                f"{path}, line {seen[row['base'], row['model']]}: a row `{row['base']}` with "
                f"model `{BASE}` was expected for {row['base']}/{row['model']}, found none. Add it."
            )
    return rows


@dataclass(frozen=True)
class Sheets:
    """All of config/, checked, and what follows from it for every study together.

    `evaluations`: study -> its rows; `members`: (base, subset) -> the checkpoints in it;
    `recipes`: every recipe that any study merges by, the points of sweeps among them;
    `study_recipes`: study -> its recipes as `plan.study_recipes` gives them;
    `models`: (base, model) -> row, its revision filled from the lock; `lock`: repository -> its
    revision, licence and files.
    """

    models: dict[tuple[str, str], dict]
    lock: dict[str, dict]
    suites: dict[str, dict]
    studies: dict[str, dict]
    evaluations: dict[str, list[Evaluation]]
    members: dict[tuple[str, str], tuple[str, ...]]
    recipes: dict[str, dict]
    study_recipes: dict[str, dict[str, dict]]


def load(config: Path, schemas: Path) -> Sheets:
    """Read and check every sheet below `config`; raise WildmergeError for the first fault."""

    def schema(name: str) -> dict[str, Any]:
        return dict(read_yaml(schemas / f"{name}.schema.yaml"))

    def checked(name: str, against: dict[str, Any]) -> dict[str, dict[str, Any]]:
        value: dict[str, dict[str, Any]] = read_yaml(config / f"{name}.yaml")
        validate(value, against, str(config / f"{name}.yaml"))
        return value

    lock = read_lock(config / LOCK)
    rows = apply_lock(read_models(config / "models.tsv", schema("models")), lock)
    suites = checked("suites", schema("suites"))
    # A method whose parameters all have defaults is a recipe by itself.
    by_default = {name: method.recipe for name, method in methods.METHODS.items()}
    recipes = {name: recipe for name, recipe in by_default.items() if recipe}
    recipes |= checked("recipes", methods.schema())
    study_schema = schema("study")
    studies: dict[str, dict[str, Any]] = {}
    evaluations: dict[str, list[Evaluation]] = {}
    members: dict[tuple[str, str], tuple[str, ...]] = {}
    used: dict[str, dict[str, Any]] = {}
    chosen: dict[str, dict[str, dict[str, Any]]] = {}
    for path in sorted((config / "studies").glob("*.yaml")):
        name, study = path.stem, read_yaml(path)
        if not re.fullmatch("[a-z][a-z0-9_]*", name):
            raise WildmergeError(
                f"{path}: a study's file was expected to be named in lower case letters, digits "
                "and _, since its name is a target of the workflow. Rename it."
            )
        validate(study, study_schema, str(path))
        asked = [*study.get("suites", [])]
        for group in study.get("groups", {}).values():
            asked += group.get("suites", [])
        for suite in asked:
            if suite not in suites:
                raise WildmergeError(
                    f"{path}: a suite of config/suites.yaml was expected, found {suite!r}. Known "
                    f"are {', '.join(suites)}. Correct the name or add the suite."
                )
        for kind in catalogue.KINDS:
            for drawn in study[kind]:
                catalogue.declaration(kind, drawn, str(path))
        studies[name] = study
        evaluations[name] = plan(study, rows, recipes, str(path))
        chosen[name] = study_recipes(study, recipes, str(path))
        # What a merge depends on: not on which sweep it is a point of.
        used |= {
            recipe: {key: value for key, value in entry.items() if key not in ("of", "changed")}
            for recipe, entry in chosen[name].items()
        }
        for row in evaluations[name]:
            if row.is_merge and members.setdefault((row.base, row.subset), row.members) != (
                row.members
            ):
                raise WildmergeError(
                    f"{path}: subset {row.subset} of {row.base} was expected to mean the same "
                    "checkpoints in all studies, found other members here than in an earlier "
                    "study. Give the study another `seed`, `pool` or name of the group."
                )
    models = {(row["base"], row["model"]): row for row in rows}
    return Sheets(models, lock, suites, studies, evaluations, members, used, chosen)
