"""The report of a study: one HTML file without scripts that opens offline, answers first."""

import base64
import html
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from wildmerge.files import read_json
from wildmerge.study import declaration

from .answers import answer_table, sentences
from .dictionary import dictionary
from .looks import Looks, Recipes
from .markup import listed, text
from .missing import lead as lead_missing, missing
from .sections import checkpoints, cost, every_merge, provenance
from .statistics_text import STATISTICS

_STYLE = Path(__file__).with_name("report.css")


def picture(path: Path) -> str:
    """A figure with its caption, the picture inside the page."""
    data = path.read_bytes()
    width = int.from_bytes(data[16:20], "big")  # pixels, from the PNG's header
    encoded = base64.b64encode(data).decode()
    told = html.escape(declaration("figures", path.stem).caption)
    name = path.stem.replace("_", " ")
    return (
        f'<figure id="{path.stem}"><h3>{html.escape(name.capitalize())}</h3>'
        f'<div class="scroll"><img alt="{html.escape(name)}" width="{0.7 * width:.0f}" '
        f'src="data:image/png;base64,{encoded}"></div>'
        f"<figcaption>{told}</figcaption></figure>"
    )


def _asked(scores: pd.DataFrame) -> str:
    """How many questions of how many tasks each model was asked, by suite."""
    found = []
    once = scores.drop_duplicates(["base", "suite", "task"])
    for suite, rows in once.groupby("suite", sort=False):
        sizes = rows.groupby("base")["questions"].agg(["sum", "size"]).drop_duplicates()
        told = [f"{int(questions)} questions of {tasks} tasks" for questions, tasks in sizes.values]
        found.append(f"{' or '.join(told)} ({suite})")
    return listed(found)


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
    parts = {
        "Answers": _answers(frames, first, looks),
        "Missing": missing(study, merges),
        "Figures": "".join(picture(path) for path in figures if path not in first),
        "Tables": "".join(map(_table, tables)),
        "Cost": cost(merges, summaries, jobs or {}, looks),
        "Checkpoints": checkpoints(sheet, by_model, merges, comparisons),
        "Statistics": STATISTICS,
        "Versions and digests": provenance(scores, summaries, by_model),
        "All merges": "<details><summary>Every merge with its gain</summary>"
        + every_merge(name, merges, comparisons, looks)
        + "</details>",
        "Data": f"<p>{listed([f'<a href={n}.csv>{n}.csv</a>' for n in frames])} lie beside this "
        "file.</p><details><summary>Data dictionary</summary>" + dictionary(frames) + "</details>",
    }
    return _page(name, study["description"], _lead(frames), parts)


def _lead(frames: Mapping[str, pd.DataFrame]) -> str:
    """How many models the study scored, on what, and how many it lacks."""
    merges = frames["merges"]
    measured = merges.dropna(subset="accuracy")
    merged = measured["recipe"] != "identity"
    bases = (measured["subset"] == "base").sum()
    return (
        f"{merged.sum()} merges, {((measured['n'] == 1) & ~merged).sum()} single checkpoints and "
        f"{bases} base{'' if bases == 1 else 's'}, each on {_asked(frames['scores'])}."
        + lead_missing(merges)
    )


def _answers(frames: Mapping[str, pd.DataFrame], figures: Sequence[Path], looks: Looks) -> str:
    """The answers: in words, as a figure, and in tables."""
    answers = frames["answers"]
    said = "".join(f"<li>{sentence}</li>" for sentence in sentences(answers, looks))
    best = (
        "<h3>Merges against the best single checkpoint</h3>" + answer_table(answers, "best", looks)
        if (answers["reference"] == "best").any()
        else ""
    )
    ratio = frames["comparisons"]["width_to_unpaired"].median()
    narrower = (
        ""
        if math.isnan(ratio)
        else f"<p>Pairing the answers of two models to the same question makes the interval of a "
        f"gain {100 * (1 - ratio):.0f} % narrower than two separate samples would (median).</p>"
    )
    return (
        f"<ul>{said}</ul>"
        "<p class=soft>Mean gain over all merges of a method; in brackets the 95 % interval over "
        "questions. How it is computed stands under <a href='#statistics'>Statistics</a>.</p>"
        + "".join(map(picture, figures))
        + "<h3>Merges against their base</h3>"
        + answer_table(answers, "base", looks)
        + best
        + narrower
    )


def _table(path: Path) -> str:
    """A table with its caption."""
    return (
        f"<h3>{html.escape(path.stem.replace('_', ' ').capitalize())}</h3>"
        f"<div class=scroll>{path.read_text(encoding='utf-8')}</div><p class=soft>"
        + html.escape(declaration("tables", path.stem).caption)
        + "</p>"
    )


def _page(name: str, description: str, lead: str, parts: Mapping[str, str]) -> str:
    """The whole page; parts without content are left out."""
    parts = {title: body for title, body in parts.items() if body}
    anchors = {title: title.split()[0].lower() for title in parts}
    links = "".join(f'<a href="#{anchors[title]}">{title}</a>' for title in parts)
    body = "\n".join(
        f'<h2 id="{anchors[title]}">{title}</h2>\n{content}' for title, content in parts.items()
    )
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<link rel="icon" href="data:,">\n<title>wildmerge: {text(name)}</title>\n'
        f"<style>\n{_STYLE.read_text(encoding='utf-8')}</style></head>\n<body>\n"
        f"<h1>Study {text(name)}</h1>\n"
        f'<p class="lead">{text(description)}</p>\n<p>{lead}</p>\n'
        f"<nav>{links}</nav>\n{body}\n</body></html>\n"
    )
