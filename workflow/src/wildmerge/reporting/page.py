"""The report of a study: one HTML file that opens offline, answers first."""

import base64
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from markupsafe import Markup

from wildmerge.analysis import Facts, questions
from wildmerge.files import read_json
from wildmerge.study import declaration

from .answers import answer_table, sentences
from .dictionary import dictionary
from .headlines import headlines
from .looks import Looks, Recipes
from .missing import missing
from .sections import (
    best_merges,
    checkpoints,
    cost,
    every_merge,
    methods_compared,
    provenance,
)
from .templates import listed, render


def build_page(
    name: str,
    study: Mapping[str, Any],
    frames: Mapping[str, pd.DataFrame],
    figures: Sequence[Path],
    tables: Sequence[Path],
    verdicts: Sequence[str | Path],
    sheet: Sequence[Mapping[str, Any]],
    plan: Sequence[Mapping[str, Any]],
    recipes: Recipes,
    jobs: Mapping[str, tuple[int, float]] | None = None,
) -> str:
    """Make the report of a study.

    Args:
        name: of the study.
        study: its YAML.
        frames: scores, merges, comparisons, intervals and answers, by name.
        figures: paths of PNG files.
        tables: paths of HTML files.
        verdicts: paths of the verdicts on task vectors.
        sheet: the rows of models.tsv of the study's models.
        plan: as for `scores.read`.
        recipes: the study's recipes by name.
        jobs: as for `sections.cost`.

    Returns:
        The HTML page.
    """
    looks = Looks(recipes)
    merges, comparisons = frames["merges"], frames["comparisons"]
    read = [read_json(path) for path in verdicts]
    by_model = {(verdict["base"], verdict["model"]): verdict for verdict in read}
    plan = [row for row in plan if not row.get("missing")]
    scores = [read_json(row["scores"]) for row in plan if Path(row["scores"]).exists()]
    paths = dict.fromkeys(row["summary"] for row in plan if row["summary"])
    summaries = [read_json(path) for path in paths if Path(path).exists()]
    first = [path for path in figures if path.stem == "gain_by_method"]
    others = [_picture(path) for path in figures if path not in first]
    parts = {
        "Answers": _answers(frames, first, looks),
        "Missing": missing(study, merges),
        "Methods against each other": methods_compared(frames["methods"], looks),
        "Best merges": best_merges(name, frames["best"], comparisons, looks),
        "Figures": render("figures", figures=others) if others else "",
        "Tables": render("tables", tables=[_table(path) for path in tables]) if tables else "",
        "All merges": every_merge(name, merges, comparisons, looks),
        "Checkpoints": checkpoints(sheet, by_model, merges, comparisons),
        "Cost": cost(merges, summaries, jobs or {}, looks),
        "Statistics": render("statistics", exact=questions.EXACT),
        "Glossary": render("glossary"),
        "Versions and digests": provenance(scores, summaries, by_model),
        "Data": render("data", files=[*frames], dictionary=dictionary(frames)),
    }
    return render(
        "report",
        name=name,
        description=study["description"],
        counts=_counts(frames),
        headlines=render(
            "headlines", headlines=headlines(name, frames, looks, study.get("margin", Facts.margin))
        ),
        sections=[
            {"anchor": title.split()[0].lower(), "title": title, "body": body}
            for title, body in parts.items()
            if body
        ],
    )


def _picture(path: Path) -> dict[str, object]:
    """A figure with its caption, the picture inside the page."""
    data = path.read_bytes()
    pixels = int.from_bytes(data[16:20], "big")  # its width, from the PNG's header
    return {
        "name": path.stem,
        "title": path.stem.replace("_", " ").capitalize(),
        "width": f"{0.7 * pixels:.0f}",
        "png": base64.b64encode(data).decode(),
        "caption": declaration("figures", path.stem).caption,
    }


def _table(path: Path) -> dict[str, object]:
    """A table of the study with its caption."""
    return {
        "title": path.stem.replace("_", " ").capitalize(),
        "html": Markup(path.read_text(encoding="utf-8")),
        "caption": declaration("tables", path.stem).caption,
    }


def _counts(frames: Mapping[str, pd.DataFrame]) -> dict[str, object]:
    """How many models the study scored, on what, and how many it lacks."""
    merges = frames["merges"]
    measured = merges.dropna(subset="accuracy")
    merged = measured["recipe"] != "identity"
    planned = (merges["recipe"] != "identity").sum()
    return {
        "merges": merged.sum(),
        "checkpoints": ((measured["n"] == 1) & ~merged).sum(),
        "bases": (measured["subset"] == "base").sum(),
        "asked": _asked(frames["scores"]),
        "planned": planned,
        "missing": (merges["left_out"] != "").any(),
    }


def _asked(scores: pd.DataFrame) -> str:
    """How many questions of how many tasks each model was asked, by suite."""
    suites = []
    once = scores.drop_duplicates(["base", "suite", "task"])
    for suite, rows in once.groupby("suite", sort=False):
        sizes = rows.groupby("base")["questions"].agg(["sum", "size"]).drop_duplicates()
        counts = [
            f"{int(questions)} questions of {tasks} tasks" for questions, tasks in sizes.values
        ]
        suites.append(f"{' or '.join(counts)} ({suite})")
    return listed(suites)


def _answers(frames: Mapping[str, pd.DataFrame], figures: Sequence[Path], looks: Looks) -> Markup:
    """The answers: in words, as a figure, and in tables."""
    answers = frames["answers"]
    ratio = frames["comparisons"]["width_to_unpaired"].median()
    return render(
        "answers",
        sentences=sentences(answers, looks),
        figures=[_picture(path) for path in figures],
        base=answer_table(answers, "base", looks),
        own=answer_table(answers, "own", looks),
        best=answer_table(answers, "best", looks),
        narrower=None if math.isnan(ratio) else round(100 * (1 - ratio)),
    )
