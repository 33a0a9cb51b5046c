"""The report's sections behind the answers: cost, checkpoints, provenance, every merge."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from markupsafe import Markup

from wildmerge.study import paths
from wildmerge.words import duration

from .looks import Looks, base_label
from .numbers import MISSING, interval, signed
from .templates import Table, render, verdict


def cost(
    merges: pd.DataFrame,
    summaries: Sequence[Mapping[str, Any]],
    jobs: Mapping[str, tuple[int, float]],
    looks: Looks,
) -> Markup:
    """What the run took: seconds, memory and bytes, by recipe and in all.

    Args:
        merges: merges.csv.
        summaries: the summary.json of each merge.
        jobs: rule -> (runs, seconds) of all rules that keep benchmarks.
        looks: of the study.
    """
    lines = []
    peaks = pd.DataFrame(
        [
            {key: s.get(key) for key in ("recipe", "peak_memory_bytes", "bytes_written")}
            for s in summaries
        ],
        columns=["recipe", "peak_memory_bytes", "bytes_written"],
    )
    made = merges[merges["evaluate_seconds"].notna()]
    once = made.drop_duplicates(["base", "subset", "recipe"])  # a merge serves all suites
    for recipe in [*looks.order(merges["recipe"]), "identity"]:
        own, all_suites = once[once["recipe"] == recipe], merges[merges["recipe"] == recipe]
        peak = peaks.loc[peaks["recipe"] == recipe, "peak_memory_bytes"].max()
        label = "base and checkpoints" if recipe == "identity" else looks.label(recipe)
        lines.append(
            [
                label, len(own), _time(own["merge_seconds"].median()),
                _time(own["merge_seconds"].sum(min_count=1)),
                "–" if pd.isna(peak) else f"{peak / 2**30:.1f} GiB",
                _time(all_suites["evaluate_seconds"].median()),
                _time(all_suites["evaluate_seconds"].sum(min_count=1)),
            ]
        )  # fmt: skip
    merge, evaluate = once["merge_seconds"].sum(), merges["evaluate_seconds"].sum()
    header = [
        "Method", "models", "merge, median", "merge, all", "peak memory", "evaluation, median",
        "evaluation, all",
    ]  # fmt: skip
    return render(
        "cost",
        merges=(once["recipe"] != "identity").sum(),
        merge_seconds=merge,
        evaluations=len(made),
        evaluate_seconds=evaluate,
        written=peaks["bytes_written"].sum() / 1e9,
        table=Table(header, lines),
        others={
            rule: runs_and_seconds
            for rule, runs_and_seconds in sorted(jobs.items())
            if rule not in ("merge", "evaluate")
        },
    )


def _time(seconds: float) -> str:
    return MISSING if math.isnan(seconds) else duration(seconds)


def checkpoints(
    sheet: Sequence[Mapping[str, Any]],
    verdicts: Mapping[tuple[str, str], Mapping[str, Any]],
    merges: pd.DataFrame,
    comparisons: pd.DataFrame,
) -> Markup:
    """The checkpoints with their verdicts, distance from the base and accuracy alone."""
    alone = comparisons[(comparisons["n"] == 1) & (comparisons["reference"] == "base")]
    lines = []
    for row in sheet:
        key = (row["base"], row["model"])
        inspected = verdicts.get(key)
        subset = "base" if row["model"] == "base" else row["model"]
        own = merges[(merges["base"] == row["base"]) & (merges["subset"] == subset)]
        accuracy = own["accuracy"].mean()  # over suites
        gain = alone[(alone["base"] == row["base"]) & (alone["subset"] == row["model"])]
        told = "; ".join(
            f"{r.suite}: " * (len(gain) > 1) + f"{signed(r.gain)} ({interval(r.low, r.high)})"
            for r in gain.itertuples()
        )
        state, why = "base", row.get("note") or ""
        if row["model"] != "base":
            state = "not inspected" if inspected is None else "usable"
            if inspected is not None and not inspected["compatible"]:
                state = "not usable"
                if inspected["overridable"] and row.get("admit"):
                    state = f"admitted: {row['admit']}"
            if inspected is not None:
                notes = inspected["reasons"] + inspected["conversions"] + inspected["warnings"]
                why = "; ".join([*notes, *([why] if why else [])])
        relative = None if inspected is None else inspected["relative_norm"]
        distance = None if relative is None else f"{100 * relative:.2g} %"
        lines.append(
            [
                base_label(row["base"]), row["model"], row["repo"],
                (row.get("revision") or "unlocked")[:12], _terms(row),
                row.get("domain") or None,
                state, distance, None if math.isnan(accuracy) else f"{100 * accuracy:.1f}",
                told or None, why or None,
            ]
        )  # fmt: skip
    header = [
        "Base", "checkpoint", "repository", "revision", "licence", "domain", "verdict", "distance",
        "accuracy, %", "gain over the base (95 % over questions)", "notes",
    ]  # fmt: skip
    return render("checkpoints", table=Table(header, lines, wide=(10,), names=3))


def _terms(row: Mapping[str, Any]) -> str:
    """The licence of a checkpoint as its card names it, and whether it is gated."""
    gated = " (gated)" if row.get("gated") else ""
    return f"{row.get('license') or 'not known'}{gated}"


def provenance(
    scores: Sequence[Mapping[str, Any]],
    summaries: Sequence[Mapping[str, Any]],
    verdicts: Mapping[tuple[str, str], Mapping[str, Any]],
) -> Markup:
    """Versions, settings and digests that the numbers hang on."""
    facts: dict[str, dict[str, None]] = {}
    for entry in scores:
        for key in ("backend", "batch_size", "dtype", "device"):
            facts.setdefault(f"evaluation: {key}", {})[str(entry.get(key))] = None
        facts.setdefault(f"suite {entry['suite']}: digest", {})[entry["suite_digest"]] = None
    for entry in summaries:
        for key in ("dtype", "device", "threads"):
            facts.setdefault(f"merge: {key}", {})[str(entry.get(key))] = None
    for entry in [*scores, *summaries]:
        for name, version in entry["versions"].items():
            facts.setdefault(f"version: {name}", {})[str(version)] = None
    inputs = [
        [base_label(base), model, _code(inspected["digest"])]
        for (base, model), inspected in sorted(verdicts.items())
    ]
    outputs = [
        [
            base_label(s["base"]), s["subset"], s["recipe"], ", ".join(s["members"]),
            _code(s["output_digest"]),
        ]
        for s in summaries
    ]  # fmt: skip
    digest = "sha256 over the weights"
    return render(
        "provenance",
        facts={name: ", ".join(values) for name, values in sorted(facts.items())},
        checkpoints=Table(["Base", "checkpoint", digest], inputs, wide=(2,), names=2),
        merges=Table(["Base", "subset", "recipe", "members", digest], outputs, (3, 4), 3),
    )


def _code(value: str | None) -> Markup | None:
    return None if value is None else Markup("<code>{}</code>").format(value)


def every_merge(name: str, merges: pd.DataFrame, comparisons: pd.DataFrame, looks: Looks) -> Markup:
    """All merges with gain, interval, verdict and the target that keeps each.

    Those without scores are shown as missing.

    Args:
        name: of the study.
        merges: merges.csv.
        comparisons: comparisons.csv.
        looks: of the study.
    """
    keys = ["base", "subset", "recipe", "suite"]
    tests = comparisons[comparisons["reference"] == "base"][[*keys, "low", "high", "verdict"]]
    rows = merges[merges["recipe"] != "identity"].merge(tests, "left", keys)
    lines = [
        [
            base_label(r.base), r.suite, r.n, r.subset, looks.label(r.recipe),
            r.members.replace(";", ", "),
            None if math.isnan(r.accuracy) else f"{100 * r.accuracy:.2f}",
            signed(r.gain), interval(r.low, r.high),
            f"diverged on {r.diverged.replace(';', ', ')}" if getattr(r, "diverged", "")
            else r.left_out if math.isnan(r.accuracy)
            else verdict(r.verdict) if isinstance(r.verdict, str) else None,
            None if math.isnan(r.norm) else f"{r.norm:.4g}",
            _code(paths.kept(name, r.base, r.subset, r.recipe)),
        ]
        for r in rows.itertuples()
    ]  # fmt: skip
    header = [
        "Base", "suite", "n", "subset", "method", "members", "accuracy, %", "gain",
        "95 % over questions", "verdict", "norm", "to keep it, ask for",
    ]  # fmt: skip
    kinds = [
        "choice", "choice", "number", "text", "choice", "text", "number", "number", "text",
        "choice", "number", "text",
    ]  # fmt: skip
    return render("merges", table=Table(header, lines, (5, 11), 5, kinds, "every-merge"))
