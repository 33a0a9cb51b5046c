"""The report's sections behind the answers: cost, checkpoints, provenance, every merge."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from wildmerge.study import paths
from wildmerge.words import duration

from .looks import Looks, base_label
from .markup import table, text, word
from .numbers import MISSING, interval, signed


def cost(
    merges: pd.DataFrame,
    summaries: Sequence[Mapping[str, Any]],
    jobs: Mapping[str, tuple[int, float]],
    looks: Looks,
) -> str:
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
                text(label), len(own), _time(own["merge_seconds"].median()),
                _time(own["merge_seconds"].sum(min_count=1)),
                "–" if pd.isna(peak) else f"{peak / 2**30:.1f} GiB",
                _time(all_suites["evaluate_seconds"].median()),
                _time(all_suites["evaluate_seconds"].sum(min_count=1)),
            ]
        )  # fmt: skip
    merge, evaluate = once["merge_seconds"].sum(), merges["evaluate_seconds"].sum()
    written = peaks["bytes_written"].sum() / 1e9
    told = (
        f"<p>{(once['recipe'] != 'identity').sum()} merges in {duration(merge)}, "
        f"{len(made)} evaluations in {duration(evaluate)}, added up over "
        f"jobs; {written:.0f} GB of weights were written.</p>"
    )
    header = [
        "Method", "models", "merge, median", "merge, all", "peak memory", "evaluation, median",
        "evaluation, all",
    ]  # fmt: skip
    rest = [
        f"{rule} {duration(seconds)} ({runs} {'job' if runs == 1 else 'jobs'})"
        for rule, (runs, seconds) in sorted(jobs.items())
        if rule not in ("merge", "evaluate")
    ]
    more = (
        f"<p>Besides, for all studies of these bases: {', '.join(rest)}. A method whose "
        "factorisations are made there shows its own part only.</p>"
        if rest
        else ""
    )
    return told + table(header, lines) + more


def _time(seconds: float) -> str:
    return MISSING if math.isnan(seconds) else duration(seconds)


def checkpoints(
    sheet: Sequence[Mapping[str, Any]],
    verdicts: Mapping[tuple[str, str], Mapping[str, Any]],
    merges: pd.DataFrame,
    comparisons: pd.DataFrame,
) -> str:
    """The checkpoints with their verdicts, distance from the base and accuracy alone."""
    alone = comparisons[(comparisons["n"] == 1) & (comparisons["reference"] == "base")]
    lines = []
    for row in sheet:
        key = (row["base"], row["model"])
        verdict = verdicts.get(key)
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
            state = "not inspected" if verdict is None else word("usable")
            if verdict is not None and not verdict["compatible"]:
                state = '<span class="below">not usable</span>'
                if verdict["overridable"] and row.get("admit"):
                    state = f"admitted: {text(row['admit'])}"
            if verdict is not None:
                notes = verdict["reasons"] + verdict["conversions"] + verdict["warnings"]
                why = "; ".join([*notes, *([why] if why else [])])
        relative = None if verdict is None else verdict["relative_norm"]
        distance = "–" if relative is None else f"{100 * relative:.2g} %"
        lines.append(
            [
                text(base_label(row["base"])), text(row["model"]), text(row["repo"]),
                text((row.get("revision") or "unlocked")[:12]), _terms(row),
                text(row.get("domain") or None),
                state, distance, "–" if math.isnan(accuracy) else f"{100 * accuracy:.1f}",
                told or "–", text(why or None),
            ]
        )  # fmt: skip
    header = [
        "Base", "checkpoint", "repository", "revision", "licence", "domain", "verdict", "distance",
        "accuracy, %", "gain over the base (95 % over questions)", "notes",
    ]  # fmt: skip
    told = (
        "<p>Distance is the norm of the task vector relative to the base's weights; accuracy is "
        "the mean over tasks (and suites) of the checkpoint alone.</p>"
    )
    return told + table(header, lines, wide=(10,), names=3)


def _terms(row: Mapping[str, Any]) -> str:
    """The licence of a checkpoint as its card names it, and whether it is gated."""
    gated = " (gated)" if row.get("gated") else ""
    return text(f"{row.get('license') or 'not known'}{gated}")


def provenance(
    scores: Sequence[Mapping[str, Any]],
    summaries: Sequence[Mapping[str, Any]],
    verdicts: Mapping[tuple[str, str], Mapping[str, Any]],
) -> str:
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
    told = "".join(
        f"<dt>{text(name)}</dt><dd><code>{text(', '.join(values))}</code></dd>"
        for name, values in sorted(facts.items())
    )
    inputs = [
        [text(base_label(base)), text(model), f"<code>{text(verdict['digest'])}</code>"]
        for (base, model), verdict in sorted(verdicts.items())
    ]
    outputs = [
        [
            text(base_label(s["base"])), text(s["subset"]), text(s["recipe"]),
            text(", ".join(s["members"])), f"<code>{text(s['output_digest'])}</code>",
        ]
        for s in summaries
    ]  # fmt: skip
    return (
        f"<dl>{told}</dl><details><summary>Digests of the {len(inputs)} checkpoints</summary>"
        + table(["Base", "checkpoint", "sha256 over the weights"], inputs, wide=(2,), names=2)
        + f"</details><details><summary>Digests of the {len(outputs)} merges</summary>"
        + table(
            ["Base", "subset", "recipe", "members", "sha256 over the weights"], outputs, (3, 4), 3
        )
        + "</details>"
    )


def every_merge(name: str, merges: pd.DataFrame, comparisons: pd.DataFrame, looks: Looks) -> str:
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
            text(base_label(r.base)), text(r.suite), text(r.subset),
            text(looks.label(r.recipe)), text(r.members.replace(";", ", ")),
            "–" if math.isnan(r.accuracy) else f"{100 * r.accuracy:.2f}",
            signed(r.gain), interval(r.low, r.high),
            f"diverged on {text(r.diverged.replace(';', ', '))}" if getattr(r, "diverged", "")
            else text(r.left_out) if math.isnan(r.accuracy)
            else word(r.verdict) if isinstance(r.verdict, str) else "–",
            "–" if math.isnan(r.norm) else f"{r.norm:.4g}",
            f"<code>{text(paths.kept(name, r.base, r.subset, r.recipe))}</code>",
        ]
        for r in rows.itertuples()
    ]  # fmt: skip
    header = [
        "Base", "suite", "subset", "method", "members", "accuracy, %", "gain",
        "95 % over questions", "verdict", "norm", "to keep it, ask for",
    ]  # fmt: skip
    told = (
        "<p>A subset's name is n, its number of checkpoints, and which draw of that number it is; "
        "before it stand the pool or the list that it was drawn from and the seed, where they are "
        "not the usual ones. <code>snakemake</code> and the last cell's path make a merge again "
        "and keep its weights, with a model card.</p>"
    )
    return told + table(header, lines, wide=(4, 10), names=4)
