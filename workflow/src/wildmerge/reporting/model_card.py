"""The model card of a merge that someone keeps."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import yaml

from wildmerge.sources import source_of

from .answers import REFERENCES
from .looks import base_label
from .numbers import MISSING, interval, signed

SheetRow = Mapping[str, Any]

NORMAL = 1.96  # standard errors on each side of a 95 % interval


def _spread(value: float, error: float | None) -> str:
    """The 95 % interval of a score by its standard error, percent; a dash where none is known."""
    if not error or math.isnan(error):
        return MISSING
    half = NORMAL * error
    return f"{100 * max(0, value - half):.1f} to {100 * min(1, value + half):.1f}"


def model_card(
    summary: SheetRow,
    scores: Sequence[SheetRow],
    comparisons: pd.DataFrame,
    sheet: Sequence[SheetRow],
) -> str:
    """The model card of a merge, in Markdown with the hub's metadata.

    Args:
        summary: its summary.json.
        scores: its score files.
        comparisons: the study's comparisons.csv.
        sheet: rows of models.tsv, each with its `license` where that is known.
    """
    rows = {(row["base"], row["model"]): row for row in sheet}
    names = ("base", *summary["members"])
    inputs = [rows[summary["base"], name] for name in names]
    settings = ", ".join(f"{k} {v}" for k, v in summary["parameters"].items()) or "no parameters"
    lines = [
        *_metadata(inputs),
        "",
        f"# {base_label(summary['base'])}, {summary['subset']}, {summary['recipe']}",
        "",
        f"Merge of {len(summary['members'])} checkpoints by `{summary['merge_method']}` "
        f"({settings}; recipe version {summary['version']}), made by wildmerge. The mergekit YAML "
        "beside the weights repeats it by hand.",
        "",
        *_inputs(inputs, summary["inputs"]),
        "",
        *_scores(scores),
        "",
        *_gains(summary, comparisons),
        "",
        f"Verdicts are those of a paired test, corrected for the {_tested(comparisons)} merges of "
        "the study when this one was kept (false discovery rate 5 %). Choosing the best of many "
        "merges favours it: expect less on new questions.",
        "",
        f"sha256 over the weights: `{summary['output_digest']}`",
        "",
    ]
    return "\n".join(lines)


def _tested(comparisons: pd.DataFrame) -> int:
    """The number of merges that a study has compared."""
    merges = comparisons[comparisons["recipe"] != "identity"]
    return len(merges.drop_duplicates(["base", "subset", "recipe"]))


def _licences(inputs: Sequence[SheetRow]) -> tuple[list[str], int]:
    """The known licences of the inputs, and the number of inputs whose licence is not known."""
    known = sorted({row["license"] for row in inputs if row.get("license")})
    return known, sum(not row.get("license") for row in inputs)


def _metadata(inputs: Sequence[SheetRow]) -> list[str]:
    """The hub's metadata; a licence where all inputs have the same."""
    known, unknown = _licences(inputs)
    hub = list(dict.fromkeys(row["repo"] for row in inputs if source_of(row["repo"]).locked))
    facts = {
        **({"base_model": hub} if hub else {}),
        "tags": ["merge", "mergekit"],
        "library_name": "transformers",
        **({"license": known[0]} if len(known) == 1 and not unknown else {}),
    }
    return ["---", *yaml.safe_dump(facts, sort_keys=False).splitlines(), "---"]


def _origin(row: SheetRow) -> str:
    """The cell `repo`, but no path of the machine that the merge was made on."""
    source = source_of(row["repo"])
    return "a folder of its maker" if source.private else str(row["repo"])


def _inputs(inputs: Sequence[SheetRow], digests: Mapping[str, str]) -> list[str]:
    """The base and the merged checkpoints, with their licences and digests."""
    lines = [
        "## Inputs",
        "",
        "| model | repository | revision | licence | note | sha256 over the weights |",
        "|---|---|---|---|---|---|",
    ]
    for row in inputs:
        cells = (
            row["model"],
            _origin(row),
            row.get("revision") or ("unlocked" if source_of(row["repo"]).locked else MISSING),
            row.get("license") or "not known",
            (row.get("note") or MISSING).replace("|", "\\|"),
            digests.get(row["model"], MISSING),
        )
        lines.append(f"| {' | '.join(cells)} |")
    known, unknown = _licences(inputs)
    named = ", ".join(known) or "none known"
    named += f" (of {unknown} of {len(inputs)} not known)" if unknown and known else ""
    return [
        *lines,
        "",
        f"Licences of the inputs: {named}. A merge is a derivative of all its inputs: read "
        "the licence in every repository above before you pass it on: the terms of each apply.",
    ]


def _scores(scores: Sequence[SheetRow]) -> list[str]:
    """The scores, task by task and on the mean over tasks."""
    lines = [
        "## Scores",
        "",
        "Percent right; the mean over tasks is what the gains are about.",
        "",
        "| suite | task | metric | few-shot | value | 95 % over questions | questions |",
        "|---|---|---|---|---|---|---|",
    ]
    for score in scores:
        suite = score["suite"]
        for task, entry in score["tasks"].items():
            lines.append(
                f"| {suite} | {task} | {entry['metric']} | {entry['num_fewshot']} "
                f"| {100 * entry['value']:.2f} | {_spread(entry['value'], entry['stderr'])} "
                f"| {entry['questions']} |"
            )
        error = math.hypot(*(e["stderr"] or math.nan for e in score["tasks"].values()))
        error /= len(score["tasks"])
        lines.append(
            f"| {suite} | mean over tasks | | | {100 * score['accuracy']:.2f} "
            f"| {_spread(score['accuracy'], error)} | |"
        )
    return lines


def _gains(summary: SheetRow, comparisons: pd.DataFrame) -> list[str]:
    """The gains over the base and over the best checkpoint."""
    lines = [
        "## Gains",
        "",
        "| suite | over | points | 95 % over questions | verdict |",
        "|---|---|---|---|---|",
    ]
    own = comparisons
    for key in ("base", "subset", "recipe"):
        own = own[own[key] == summary[key]]
    if own.empty:
        return [lines[0], "", "The study lacks other merges of this subset, and compares none."]
    for row in own.itertuples():
        lines.append(
            f"| {row.suite} | {REFERENCES[row.reference]} (`{row.reference_model}`) "
            f"| {signed(row.gain)} | {interval(row.low, row.high)} | {row.verdict} |"
        )
    return lines
