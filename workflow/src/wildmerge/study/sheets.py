"""Read the sheets of config/ and hold them against their schemas; light enough for a dry run."""

import csv
import io
import re
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

from wildmerge import WildmergeError, methods
from wildmerge.home import home
from wildmerge.sources import LOCK, apply_lock, check_source, locked_files, read_lock
from wildmerge.study import catalogue
from wildmerge.study.missing import mark_missing
from wildmerge.study.plan import BASE, Evaluation, plan, pool, study_recipes
from wildmerge.validation import read_text, read_yaml, validate

NEEDED = ("config.yaml", "models.tsv", "recipes.yaml", "suites.yaml", "experts.yaml")


def check_folder(config: Path) -> None:
    """Say at once all that a folder of sheets lacks.

    Raises:
        WildmergeError: it lacks one of the sheets, or has no study.
    """
    lacking = [name for name in NEEDED if not (config / name).is_file()]
    if not any((config / "studies").glob("*.yaml")):
        lacking.append("studies/*.yaml (one study at least)")
    if lacking:
        raise WildmergeError(
            f"{config}: a folder with {', '.join(NEEDED)} and studies/ was expected, but it lacks "
            f"{', '.join(lacking)}. Copy them from the project's config/, or begin with a folder "
            "that has all: `wildmerge new project FOLDER`."
        )


def read_rows(path: Path) -> list[dict]:
    """Read models.tsv as it is: one dict a row, all values text.

    Raises:
        WildmergeError: it is missing or is not UTF-8.
    """
    lines = io.StringIO(read_text(path), newline="")
    return list(csv.DictReader(lines, delimiter="\t", restval=""))


def _check_header(path: Path, schema: dict) -> None:
    """Refuse a header that is not there, has no tabs, or has other columns than the schema."""
    header = next(iter(read_text(path).splitlines()), "")
    columns, wanted = header.split("\t"), list(schema["properties"])
    where = f"{path}, line 1: the columns {', '.join(wanted)} were expected, divided by single tabs"
    if not header.strip():
        raise WildmergeError(
            f"{where}, found none. Copy the first line of the project's config/models.tsv."
        )
    if len(columns) == 1:
        raise WildmergeError(
            f"{where}, found no tab in {header!r}. Put tabs in the place of the spaces or commas."
        )
    said = {
        "without": [name for name in wanted if name not in columns],
        "with an unknown": [name for name in columns if name not in wanted],
        "twice with": sorted({name for name in columns if columns.count(name) > 1}),
    }
    if faults := [f"{word} {', '.join(map(repr, names))}" for word, names in said.items() if names]:
        raise WildmergeError(f"{where}, found a line {'; '.join(faults)}. Correct it.")


def read_models(path: Path, schema: dict) -> list[dict]:
    """Read models.tsv: one dict a row, all values text; rows are checked, names are unique.

    Raises:
        WildmergeError: for the first fault, with its line.
    """
    _check_header(path, schema)
    rows = read_rows(path)
    if not rows:
        raise WildmergeError(
            f"{path}: a base and its checkpoints were expected, one a line, found no line below "
            "the header. Add them."
        )
    seen: dict[tuple[str, str], int] = {}
    for line, row in enumerate(rows, start=2):
        where = f"{path}, line {line}"
        if None in row:
            raise WildmergeError(
                f"{where}: as many columns as the header has were expected, found more: "
                f"{row[None]!r}. Columns are divided by single tabs."
            )
        if not row["repo"] and " " in row["base"].strip():
            raise WildmergeError(
                f"{where}: columns divided by single tabs were expected, found {row['base']!r} in "
                "the first. Put tabs in the place of the spaces."
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

    `evaluations`: study -> its rows, those that are missing marked;
    `members`: (base, subset) -> the checkpoints in it;
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


def rule_names() -> set[str]:
    """The rules of the workflow, which are targets as studies are."""
    snakefile = read_text(home() / "Snakefile")
    return set(re.findall(r"^rule (\w+):", snakefile, flags=re.MULTILINE))


def load(config: Path, schemas: Path) -> Sheets:
    """Read and check every sheet below `config`; raise WildmergeError for the first fault."""

    def schema(name: str) -> dict[str, Any]:
        return dict(read_yaml(schemas / f"{name}.schema.yaml"))

    def checked(name: str, against: dict[str, Any]) -> dict[str, dict[str, Any]]:
        value: dict[str, dict[str, Any]] = read_yaml(config / f"{name}.yaml")
        validate(value, against, str(config / f"{name}.yaml"))
        return value

    check_folder(config)
    lock = read_lock(config / LOCK)
    rows = apply_lock(read_models(config / "models.tsv", schema("models")), lock)
    suites = checked("suites", schema("suites"))
    # A method whose parameters all have defaults is a recipe by itself.
    by_default = {name: method.recipe for name, method in methods.METHODS.items()}
    recipes = {name: recipe for name, recipe in by_default.items() if recipe}
    recipes |= checked("recipes", methods.schema())
    study_schema = schema("study")
    rules = rule_names()
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
        if name in rules:
            raise WildmergeError(
                f"{path}: a name that no rule of the workflow has was expected, since both are "
                f"targets, found {name}. Taken are {', '.join(sorted(rules))}. Rename the file."
            )
        validate(study, study_schema, str(path))
        _check_whole(study, str(path))
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
        planned = plan(study, rows, recipes, str(path))
        evaluations[name] = mark_missing(planned, study, str(path))
        if study.get("duplicates") == "refuse":
            _check_duplicates(study, rows, lock, str(path))
        chosen[name] = study_recipes(study, recipes, str(path))
        _check_points(chosen[name], str(path))
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
                    "study. Give the study another `prefix`, `seed`, `pool` or name of the group."
                )
    models = {(row["base"], row["model"]): row for row in rows}
    return Sheets(models, lock, suites, studies, evaluations, members, used, chosen)


def _check_whole(study: dict[str, Any], where: str) -> None:
    """Refuse a study that says how to merge and not what, or measures nothing of what it draws.

    Raises:
        WildmergeError: a key that goes with another is missing.
    """
    merged = [key for key in ("recipes", "sweeps") if study.get(key)]
    drawn = [key for key in ("sizes", "groups") if study.get(key)]
    scored = bool(study.get("suites"))
    printed = [
        f"{kind} {name}"
        for kind in catalogue.KINDS
        for name in study[kind]
        if set(catalogue.declaration(kind, name, where).inputs) & set(catalogue.CSV)
    ]
    if (merged or drawn or printed) and not scored:
        raise WildmergeError(
            f"{where}: `suites` was expected, what every model is scored on, found none beside "
            f"{', '.join([*merged, *drawn, *printed])}. Name a suite of config/suites.yaml."
        )
    if merged and not drawn:
        raise WildmergeError(
            f"{where}: `sizes` (with `draws`) or `groups` was expected, which checkpoints are "
            f"merged together, found neither beside `{merged[0]}`. Add one of the two."
        )
    if drawn and not merged:
        raise WildmergeError(
            f"{where}: `recipes` or `sweeps` was expected, how subsets are merged, found neither "
            f"beside `{drawn[0]}`. Add one of the two, or drop `{drawn[0]}`."
        )


def _check_duplicates(
    study: dict[str, Any], rows: list[dict], lock: dict[str, dict], where: str
) -> None:
    """Refuse checkpoints that are the same by their rows, or by the digests in the lock.

    Raises:
        WildmergeError: two of a study's checkpoints of one base are the same.
    """
    for base in study["bases"]:
        seen: dict[object, str] = {}
        for model, row in pool(study, rows, base, where).items():
            files = locked_files(row, lock) or {}
            weights = sorted(
                entry[1] for name, entry in files.items() if name.endswith((".safetensors", ".bin"))
            )
            place = Path(row["repo"].removeprefix("dir:")).absolute().resolve()
            same = place if row["repo"].startswith("dir:") else (row["repo"], row["revision"])
            for key in (same, tuple(weights)):
                if key and seen.setdefault(key, model) != model:
                    raise WildmergeError(
                        f"{where}: checkpoints that differ were expected, since it says "
                        f"`duplicates: refuse`, found the same weights in {base}/{seen[key]} and "
                        f"{base}/{model} ({row['repo']}). Take one of them out of the study."
                    )


def _check_points(recipes: dict[str, dict[str, Any]], where: str) -> None:
    """Hold the points of a study's sweeps against their methods, and their names against paths.

    Raises:
        WildmergeError: a value that the method does not take, or that makes no part of a path.
    """
    for name, recipe in recipes.items():
        if "of" not in recipe:
            continue
        place = f"{where}, sweep over {recipe['of']}"
        method = methods.METHODS.get(recipe["merge_method"])
        if method:
            methods.check_parameters(method, recipe["parameters"], place)
        elif bad := [
            v for v in recipe["changed"].values() if isinstance(v, float) and not isfinite(v)
        ]:
            raise WildmergeError(f"{place}: a finite number was expected, found {bad[0]}. Drop it.")
        if not re.fullmatch(r"[a-z0-9._-]+", name):
            raise WildmergeError(
                f"{place}: values were expected that can be part of a path (lower-case letters, "
                f"digits, `.`, `_`, `-`), found the point {name!r}. Choose other values, or write "
                "them in a recipe of its own."
            )
