"""What a study can see, before it runs: the smallest differences by method, pair and contrast.

A merge differs from its base on a share of the questions, its churn. Over the questions of a suite
the variance of its gain is then, at most, the sum over tasks of share² churn d / Q, with Q
questions and a design effect d where questions depend on each other.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from wildmerge.files import read_json

from .methods import PAIRED
from .questions import smallest_seen

# lm-eval's tasks on the hub: leaf tasks, questions in all, mean size of a question's cluster (by
# the columns that config/suites.yaml names).
KNOWN = {
    "arc_easy": (1, 2376, 1.0),
    "arc_challenge": (1, 1172, 1.0),
    "boolq": (1, 3270, 1.3),
    "commonsense_qa": (1, 1221, 3.45),
    "hellaswag": (1, 10042, 1.58),
    "winogrande": (1, 1267, 1.93),
    "piqa": (1, 1838, 1.05),
    "openbookqa": (1, 500, 1.0),
    "headqa": (2, 5484, 2.0),
    "headqa_en": (1, 2742, 1.0),
    "prost": (1, 18736, 288.0),
    "truthfulqa_mc1": (1, 817, 1.0),
    "medmcqa": (1, 4183, 1.0),
    "leaderboard_gpqa": (3, 1192, 2.4),
    "leaderboard_bbh": (24, 5761, 1.0),
    "mmlu": (57, 14042, 1.0),
    "leaderboard_mmlu_pro": (1, 12032, 1.0),
    "mmlu_anatomy": (1, 135, 1.0),
    "mmlu_clinical_knowledge": (1, 265, 1.0),
    "mmlu_medical_genetics": (1, 100, 1.0),
    "mmlu_professional_medicine": (1, 272, 1.0),
    "mmlu_virology": (1, 166, 1.0),
    "mmlu_college_medicine": (1, 173, 1.0),
    "mmlu_abstract_algebra": (1, 100, 1.0),
    "mmlu_college_mathematics": (1, 100, 1.0),
    "mmlu_elementary_mathematics": (1, 378, 1.0),
    "mmlu_formal_logic": (1, 126, 1.0),
    "leaderboard_bbh_boolean_expressions": (1, 250, 1.0),
    "leaderboard_bbh_formal_fallacies": (1, 250, 1.0),
    "leaderboard_bbh_geometric_shapes": (1, 250, 1.0),
    "leaderboard_bbh_object_counting": (1, 250, 1.0),
    "leaderboard_bbh_web_of_lies": (1, 250, 1.0),
}
# Percent of the questions on which a merge differs from its base, by merge method: means of study
# `small`, 26 merges each of twelve experts of SmolLM2-135M.
CHURN = {
    "ties": 1.8,
    "ties_hashed": 1.8,
    "ties_sb": 2.1,
    "model_stock": 4.8,
    "iso_c": 7.8,
    "task_arithmetic": 10.6,
    "task_arithmetic_sb": 11.0,
    "tsv_m": 14.5,
}
OTHER_CHURN = 10.0
WITHIN = 0.2  # correlation of the differences of two questions of one cluster
BETWEEN = 0.6  # correlation over questions of the gains of two merges of a method
LOSS = 0.05  # part of an interval's width that a leaner suite may cost


@dataclass(frozen=True)
class Task:
    """The questions of a task: how many, of how many leaf tasks, in clusters of what mean size."""

    name: str
    questions: int
    leaves: int = 1
    cluster: float = 1.0

    def variance(self, asked: float | None = None) -> float:
        """The variance of its accuracy's difference for a churn of 1, asking all or some of it.

        What questions of a cluster share is not averaged out by asking more of each.
        """
        clusters = self.questions / self.cluster
        within = WITHIN if self.cluster > 1 else 0.0
        return (1 - within) / (asked or self.questions) + within / clusters


def tasks_of(suite: Mapping[str, Any], fetched: Path) -> tuple[list[Task], list[str]]:
    """The tasks of a suite, and the names of those whose number of questions isn't known yet.

    Args:
        suite: its entry in config/suites.yaml.
        fetched: the suite's folder, where its questions have been brought already.
    """
    found, unknown = [], []
    there = read_json(fetched / "suite.json") if (fetched / "suite.json").is_file() else None
    for name, wanted in suite["tasks"].items():
        leaves, known, cluster = KNOWN.get(name, (1, 0, 1.0))
        most = wanted.get("questions")
        if there is not None:
            sizes = [member["questions"] for member in there["tasks"][name]["members"].values()]
            leaves, asked = len(sizes), sum(sizes)
        elif suite["source"] == "hub":
            asked = min(known, most * leaves) if known and most else known
        else:
            asked = most * leaves if most else 0
        if not asked:
            unknown.append(name)
            continue
        # Of a sample fewer lie in one cluster.
        part = min(1.0, asked / known) if known else 1.0
        cluster = 1 + (cluster - 1) * part if "cluster" in wanted else 1.0
        found.append(Task(name, asked, leaves, cluster))
    return found, unknown


def standard_error(tasks: Sequence[Task], churn: float) -> float:
    """Of a merge's gain over the questions of a suite, points. churn: percent."""
    return 100 * math.sqrt(churn / 100 * sum(task.variance() for task in tasks)) / len(tasks)


def lean(tasks: Sequence[Task], loss: float = LOSS) -> dict[str, int]:
    """How many questions of each task are worth asking: the fewest that widen intervals by `loss`.

    Tasks count alike in the mean, so that a task with many questions hardly adds to its error.
    """
    allowed = (1 + loss) ** 2 * sum(task.variance() for task in tasks)

    def asked(scale: float) -> list[float]:
        alone = (math.sqrt(1 - WITHIN) if t.cluster > 1 else 1.0 for t in tasks)
        return [min(t.questions, scale * c) for t, c in zip(tasks, alone, strict=True)]

    few, many = 1.0, float(max(task.questions for task in tasks))
    for _ in range(60):
        middle = math.sqrt(few * many)
        pairs = zip(tasks, asked(middle), strict=True)
        enough = sum(task.variance(count) for task, count in pairs) <= allowed
        few, many = (few, middle) if enough else (middle, many)
    counts = (math.ceil(count) for count in asked(many))
    return {task.name: count for task, count in zip(tasks, counts, strict=True)}


def churns(
    recipes: Mapping[str, Mapping[str, Any]],
    stated: Mapping[str, float],
    measured: pd.DataFrame | None,
    questions: int,
) -> dict[str, tuple[float, str]]:
    """Recipe -> percent of questions on which its merges differ from the base, and how it's known.

    Args:
        recipes: the study's, by name.
        stated: recipe -> percent, the study's key `churn`.
        measured: the study's comparisons.csv, where it has run before.
        questions: of the suite.
    """
    found = {}
    seen: dict[str, float] = {}
    if measured is not None and "differing" in measured:
        own = measured[measured["reference"] == "base"]
        seen = (100 * own.groupby("recipe")["differing"].mean() / questions).to_dict()
    for name, recipe in recipes.items():
        if name in stated:
            found[name] = float(stated[name]), "stated"
        elif name in seen:
            found[name] = max(seen[name], 0.01), "measured"
        else:
            method = recipe["merge_method"]
            found[name] = CHURN.get(method, OTHER_CHURN), "assumed"
    return found


def visible(
    tasks: Sequence[Task],
    recipes: Mapping[str, tuple[float, str]],
    merges: int,
    contrasts: Sequence[Mapping[str, Any]],
    studied: int,
) -> pd.DataFrame:
    """The smallest true differences that are found with 80 % power, over questions.

    Args:
        tasks: of the suite.
        recipes: recipe -> its churn in percent, and how that is known.
        merges: of a recipe on one base.
        contrasts: planned, as `study.contrasts` gives them.
        studied: all merges of the study, that a merge's test is corrected for.

    Returns:
        A row a recipe (`b` is the base), pair or contrast: kind, a, b, churn (percent; that of a
        pair is the sum, the most it can be), known, se of a mean over all its merges (points), mde
        and mde_holm of that mean, and for recipes one_mde and one_mde_holm, of a single merge.
    """
    shrink = math.sqrt(BETWEEN + (1 - BETWEEN) / max(merges, 1))
    rows: list[dict[str, Any]] = []
    pairs = [*itertools.combinations(recipes, 2)] if len(recipes) <= PAIRED else []

    def row(kind: str, a: str, b: str, churn: float, known: str, tests: int) -> dict[str, Any]:
        one = standard_error(tasks, churn)
        se = one * shrink
        said = {"kind": kind, "a": a, "b": b, "churn": churn, "known": known, "se": se}
        said |= {"mde": float(smallest_seen(se)), "mde_holm": float(smallest_seen(se, tests))}
        if kind == "method":
            said["one_mde"] = float(smallest_seen(one))
            said["one_mde_holm"] = float(smallest_seen(one, max(studied, 1)))
        return said

    for name, (churn, known) in recipes.items():
        rows.append(row("method", name, "base", churn, known, len(recipes)))
    for a, b in pairs:
        churn = min(100.0, recipes[a][0] + recipes[b][0])
        rows.append(row("pair", a, b, churn, "sum of both", len(pairs)))
    for contrast in contrasts:
        sides = [contrast["a"], contrast["b"]]
        # The mean of k differences that are as correlated as merges are.
        count = max(map(len, sides))
        churn = min(100.0, sum(float(np.mean([recipes[r][0] for r in side])) for side in sides))
        churn *= BETWEEN + (1 - BETWEEN) / count
        said = row("contrast", ";".join(sides[0]), ";".join(sides[1]), churn, "sum of both", 1)
        rows.append(said | {"mde_holm": float(smallest_seen(said["se"], len(contrasts)))})
    return pd.DataFrame(rows)


def render(
    suite: str,
    tasks: Sequence[Task],
    table: pd.DataFrame,
    margin: float,
    labels: Mapping[str, str],
) -> str:
    """What a study can see on a suite, as text.

    Args:
        suite: its name.
        tasks: its tasks.
        table: of `visible`.
        margin: what the study calls equal, points.
        labels: recipe -> its label.
    """
    total = sum(task.questions for task in tasks)
    effective = len(tasks) ** 2 / sum(task.variance() for task in tasks)

    def label(names: str) -> str:
        return ", ".join(labels.get(name, name) for name in names.split(";"))

    head = f"{'method':<16}{'churn':>8}{'one merge':>12}{'corrected':>11}{'its mean':>10}"
    head += f"{'corrected':>11}"
    lines = [
        f"What suite {suite} can see: the smallest true difference, in points, that is found in "
        "four of five studies.",
        f"{total:,} questions of {len(tasks)} tasks are worth {effective:,.0f} independent ones in "
        "the mean over tasks.",
        "",
        head,
        "-" * len(head),
    ]
    methods = table[table["kind"] == "method"]
    for r in methods.itertuples():
        churn = f"{r.churn:.1f} %" + {"assumed": "", "stated": " s", "measured": " m"}[r.known]
        lines.append(
            f"{label(r.a):<16}{churn:>8}{r.one_mde:>12.2f}{r.one_mde_holm:>11.2f}"
            f"{r.mde:>10.2f}{r.mde_holm:>11.2f}"
        )
    pairs = table[table["kind"] == "pair"].sort_values("mde_holm")
    if len(pairs):
        first, last = pairs.iloc[0], pairs.iloc[-1]
        lines += [
            "",
            f"Two methods on the same subsets ({len(pairs)} pairs, corrected): from "
            f"{first.mde_holm:.2f} ({label(first.a)} against {label(first.b)}) to "
            f"{last.mde_holm:.2f} ({label(last.a)} against {label(last.b)}).",
        ]
    for r in table[table["kind"] == "contrast"].itertuples():
        lines.append(f"{label(r.a)} against {label(r.b)}: {r.mde_holm:.2f} (corrected).")
    least = float(methods["mde"].min()) if len(methods) else math.inf
    equal = "equality can be seen" if least <= margin else "no method can be found equal"
    lines += ["", f"Margin of the study: {margin:g} points; {equal}."]
    fewer = lean(tasks)
    asked = sum(fewer.values())
    if asked < 0.9 * total:
        kept = [f"{t.name} {fewer[t.name]:,}" for t in tasks if fewer[t.name] < t.questions]
        lines += [
            "",
            f"Worth asking: {asked:,} questions, no more than {', '.join(kept)}; intervals would "
            f"be {100 * LOSS:.0f} % wider.",
        ]
    lines += [
        "",
        "Churn is the share of questions on which a merge differs from its base: m measured in "
        "this study, s stated",
        "by its key `churn`, else as measured on SmolLM2-135M. Assumed: differences of questions "
        f"of one cluster correlate by {WITHIN:g},",
        f"gains of merges of a method by {BETWEEN:g}. Over questions alone; draws and checkpoints "
        "add to it.",
    ]
    return "\n".join(lines)
