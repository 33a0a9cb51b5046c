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


_SHOWN = 10  # merges that the table of the best ones shows of a base


def best_merges(
    name: str, best: pd.DataFrame, comparisons: pd.DataFrame, looks: Looks
) -> Markup | str:
    """The merges that scored best, each with bounds that hold for all at once, and how to keep it.

    Args:
        name: of the study.
        best: best.csv.
        comparisons: comparisons.csv, for the best of a merge's own members.
        looks: of the study.
    """
    if best.empty:
        return ""
    keys = ["base", "subset", "recipe", "suite"]
    own = comparisons.loc[
        comparisons["reference"] == "own", [*keys, "reference_model", "gain", "verdict"]
    ].rename(columns={"gain": "over_own", "verdict": "own_verdict"})
    rows = best[best["rank"] <= _SHOWN].merge(own, "left", keys)
    lines = [
        [
            base_label(r.base), r.suite, r.rank, r.subset, looks.label(r.recipe),
            r.members.replace(";", ", "), signed(r.gain), signed(r.gain_corrected),
            interval(r.low, r.high), "yes" if r.contender else "no",
            None if pd.isna(r.over_own) else f"{signed(r.over_own)} ({r.reference_model})",
            None if pd.isna(r.own_verdict) else verdict(r.own_verdict),
            _code(paths.kept(name, r.base, r.subset, r.recipe)),
        ]
        for r in rows.itertuples()
    ]  # fmt: skip
    header = [
        "Base", "suite", "rank", "subset", "method", "members", "gain", "corrected for its rank",
        "95 %, all merges at once", "may be the best", "over its best member", "verdict",
        "to keep it, ask for",
    ]  # fmt: skip
    counts = best.groupby(["base", "suite"], sort=False)["contender"].agg(["sum", "size"])
    return render(
        "best",
        table=Table(header, lines, (5, 12), 5),
        contenders=[
            (base_label(base), suite, int(row["sum"]), int(row["size"]))
            for (base, suite), row in counts.iterrows()
        ],
    )


def methods_compared(methods: pd.DataFrame, looks: Looks) -> Markup | str:
    """Method against method on the same subsets, and the planned contrasts.

    Args:
        methods: methods.csv.
        looks: of the study.
    """
    rows = methods[methods["n"].astype(str) == "all"]
    if rows.empty:
        return ""

    def labels(recipes: str) -> str:
        return ", ".join(looks.label(recipe) for recipe in recipes.split(";"))

    def table(chosen: pd.DataFrame, named: bool) -> Table:
        lines = []
        for r in chosen.itertuples():
            ends = f"{r.population}_low", f"{r.population}_high"
            first = [r.contrast] if named else []
            lines.append(
                [
                    base_label(r.base), r.suite, *first, labels(r.a), labels(r.b), int(r.subsets),
                    signed(r.difference), interval(r.questions_low, r.questions_high),
                    interval(*(getattr(r, end) for end in ends)), r.population,
                    None if math.isnan(r.wins) else f"{r.wins:.0f} %",
                    None if math.isnan(r.p_holm) else f"{r.p_holm:.2g}", verdict(r.verdict),
                ]
            )  # fmt: skip
        header = [
            "Base", "suite", *(["contrast"] if named else []), "a", "b", "subsets", "a - b",
            "95 % over questions", "95 %, widest", "over", "a wins", "p, Holm", "verdict",
        ]  # fmt: skip
        kinds = ["choice", "choice", *(["choice"] if named else []), "choice", "choice"]
        kinds += ["number", "number", "text", "text", "choice", "number", "number", "choice"]
        identity = "contrasts" if named else "pairs"
        return Table(header, lines, (), 5 if named else 4, kinds, identity)

    planned = rows["contrast"].notna() & (rows["contrast"] != "")
    return render(
        "methods", pairs=table(rows[~planned], False), contrasts=table(rows[planned], True)
    )


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
    own = comparisons.loc[comparisons["reference"] == "own", [*keys, "gain", "verdict"]]
    own = own.rename(columns={"gain": "over_own", "verdict": "own_verdict"})
    rows = merges[merges["recipe"] != "identity"].merge(tests, "left", keys)
    rows = rows.merge(own, "left", keys)
    lines = [
        [
            base_label(r.base), r.suite, r.n, r.subset, looks.label(r.recipe),
            r.members.replace(";", ", "),
            None if math.isnan(r.accuracy) else f"{100 * r.accuracy:.2f}",
            signed(r.gain), interval(r.low, r.high),
            f"diverged on {r.diverged.replace(';', ', ')}" if getattr(r, "diverged", "")
            else r.left_out if math.isnan(r.accuracy)
            else verdict(r.verdict) if isinstance(r.verdict, str) else None,
            signed(r.over_own), verdict(r.own_verdict) if isinstance(r.own_verdict, str) else None,
            None if math.isnan(r.norm) else f"{r.norm:.4g}",
            _code(paths.kept(name, r.base, r.subset, r.recipe)),
        ]
        for r in rows.itertuples()
    ]  # fmt: skip
    header = [
        "Base", "suite", "n", "subset", "method", "members", "accuracy, %", "gain",
        "95 % over questions", "verdict", "over its best member", "verdict on that", "norm",
        "to keep it, ask for",
    ]  # fmt: skip
    kinds = [
        "choice", "choice", "number", "text", "choice", "text", "number", "number", "text",
        "choice", "number", "choice", "number", "text",
    ]  # fmt: skip
    return render("merges", table=Table(header, lines, (5, 13), 5, kinds, "every-merge"))
