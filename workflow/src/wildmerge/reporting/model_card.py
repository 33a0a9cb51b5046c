"""The model card of a merge that someone keeps."""

import math

import pandas as pd

from wildmerge.reporting import looks as style
from wildmerge.reporting.looks import interval
from wildmerge.reporting.page import REFERENCES
from wildmerge.sources.lock import is_hub

NORMAL = 1.96  # standard errors on each side of a 95 % interval


def _spread(value: float, error: float | None) -> str:
    """The 95 % interval of a score by its standard error, percent; a dash where none is known."""
    if not error or math.isnan(error):
        return "–"
    half = NORMAL * error
    return f"{100 * max(0, value - half):.1f} to {100 * min(1, value + half):.1f}"


def model_card(
    summary: dict, scores: list[dict], comparisons: pd.DataFrame, sheet: list[dict]
) -> str:
    """The model card of a merge, in Markdown with the hub's metadata.

    summary: its summary.json; scores: its score files; comparisons: the study's comparisons.csv;
    sheet: rows of models.tsv, each with its `license` where that is known.
    """
    rows = {(row["base"], row["model"]): row for row in sheet}
    base = rows[summary["base"], "base"]
    inputs = [base, *(rows[summary["base"], member] for member in summary["members"])]
    name = f"{style.base_label(summary['base'])}, {summary['subset']}, {summary['recipe']}"
    settings = ", ".join(f"{k} {v}" for k, v in summary["parameters"].items()) or "no parameters"
    known = sorted({row.get("license") for row in inputs} - {None, ""})
    unknown = sum(not row.get("license") for row in inputs)
    named = ", ".join(known) or "none known"
    named += f" (of {unknown} of {len(inputs)} not known)" if unknown and known else ""
    lines = [
        "---",
        "base_model:",
        *(f"- {row['repo']}" for row in inputs if is_hub(row)),
        "tags:",
        "- merge",
        "- mergekit",
        "library_name: transformers",
        *([f"license: {known[0]}"] if len(known) == 1 and not unknown else []),
        "---",
        "",
        f"# {name}",
        "",
        f"Merge of {len(summary['members'])} checkpoints by `{summary['merge_method']}` "
        f"({settings}; recipe version {summary['version']}), made by wildmerge. The mergekit YAML "
        "beside the weights repeats it by hand.",
        "",
        "## Inputs",
        "",
        "| model | repository | revision | licence | note | sha256 over the weights |",
        "|---|---|---|---|---|---|",
    ]
    for row in inputs:
        cells = (
            row["model"],
            row["repo"],
            row.get("revision") or "unlocked",
            row.get("license") or "not known",
            row.get("note") or "–",
            summary["inputs"].get(row["model"], "–"),
        )
        lines.append(f"| {' | '.join(cells)} |")
    lines += [
        "",
        f"Licences of the inputs: {named}. A merge is a derivative of all its inputs: read "
        "the licence in every repository above before you pass it on: the terms of each apply.",
        "",
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
    lines += [
        "",
        "## Gains",
        "",
        "| suite | over | points | 95 % over questions | verdict |",
        "|---|---|---|---|---|",
    ]
    own = comparisons
    for key in ("base", "subset", "recipe"):
        own = own[own[key] == summary[key]]
    for row in own.itertuples():
        lines.append(
            f"| {row.suite} | {REFERENCES[row.reference]} (`{row.reference_model}`) "
            f"| {style.signed(row.gain)} | {interval(row.low, row.high)} | {row.verdict} |"
        )
    lines += [
        "",
        "Verdicts are those of a paired test, corrected for all merges of the study (false "
        "discovery rate 5 %). Choosing the best of many merges favours it: expect less on new "
        "questions.",
        "",
        f"sha256 over the weights: `{summary['output_digest']}`",
        "",
    ]
    return "\n".join(lines)
