"""The report of a study: one HTML file without scripts that opens offline, answers first."""

import base64
import html
import math
from pathlib import Path

import pandas as pd

from wildmerge.analysis import stats
from wildmerge.files import read_json
from wildmerge.reporting import looks as style
from wildmerge.reporting.looks import interval

TEXTS = Path(__file__).parents[3] / "report"  # captions and the style sheet
MOST_NAMED = 12  # methods that a sentence names; the points of a sweep are counted
REFERENCES = {"base": "the base", "best": "the best single checkpoint"}

# Column -> meaning and unit, for all CSV files of a study.
DICTIONARY = {
    "base": "base model; `average` is the plain mean over bases",
    "subset": "`base`, a checkpoint, a draw `n04-07` (size 4, draw 7) or a named group",
    "n": "number of merged checkpoints; 0 the base, 1 a single checkpoint",
    "draw": "number of the draw among those of its size; 0 where nothing was drawn",
    "members": "merged checkpoints, separated by `;`",
    "recipe": "merge recipe; `identity` where nothing was merged",
    "suite": "suite of benchmarks",
    "task": "benchmark",
    "metric": "lm-eval's metric of the benchmark",
    "value": "the metric, a fraction of 1",
    "stderr": "lm-eval's standard error of the metric, a fraction of 1",
    "questions": "number of questions",
    "accuracy": "mean of the suite's tasks, a fraction of 1",
    "base_accuracy": "the base's accuracy, a fraction of 1",
    "best_accuracy": "accuracy of the best single checkpoint on all questions, a fraction of 1",
    "best_model": "that checkpoint",
    "gain": "accuracy minus the reference's (the base's in merges.csv), percentage points",
    "gain_over_best": "accuracy minus best_accuracy, percentage points",
    "norm": "L2 norm of the merged update before rounding to 16 bits",
    "norm_rounded": "the same after rounding",
    "merge_seconds": "seconds that the merge took",
    "evaluate_seconds": "seconds that the evaluation took",
    "reference": "`base`, or `best`: the best single checkpoint, chosen on one half of the "
    "questions and compared with on the other half",
    "reference_model": "the model compared with",
    "low": "95 % interval of the gain over questions, points; empty where nothing varies",
    "high": "its upper end",
    "width_to_unpaired": "width of that interval relative to one of unpaired samples",
    "p": "two-sided p-value of the paired test, uncorrected",
    "p_false_discovery": "corrected by Benjamini-Hochberg for all merges of the study",
    "p_holm": "corrected by Holm for all merges (comparisons.csv) or rows (answers.csv)",
    "verdict": "`above`, `below` or `not told apart` at 5 % after correction",
    "models": "number of models in the row",
    "share": "share of them with a gain above zero, percent",
    "share_low": "95 % interval of the share over draws, percent",
    "share_high": "its upper end",
    "share_above": "share of models significantly above the reference, percent",
    "share_below": "share of models significantly below, percent",
    "questions_low": "95 % interval of the mean gain over questions, points",
    "questions_high": "its upper end",
    "draws_low": "95 % interval of the mean gain over draws, points",
    "draws_high": "its upper end",
}

# Columns of checkpoints.csv and of tables/*.csv that need words.
CHECKPOINTS = {
    "model": "the checkpoint",
    "repo": "where it comes from",
    "revision": "the commit, or version and digest of a package",
    "usable": "whether it can be merged with its base",
    "norm": "L2 norm of its task vector",
    "relative_norm": "the same relative to the base's weights",
    "ancestry": "how far it stands from its family; from 3 on another ancestor is likely",
    "low_rank_tensors": "tensors whose task vector looks like a merged adapter",
    "found": "why it was refused",
    "admitted": "why the sheet admits it nevertheless",
    "conversions": "what was done to make it an ordinary checkpoint",
    "warnings": "what is odd about it",
}
TABLES = {
    "combinations": "number of merges in the cell (checkpoints for n = 1)",
    "published_share": "the paper's share of merges above the reference, percent",
    "published_gain": "the paper's mean gain, points",
}

# Columns of results/scores/.../*.items.parquet, one row a question, that need words.
ITEMS = {
    "member": "lm-eval's leaf task that the question belongs to",
    "doc": "number of the question in the leaf task's data",
    "correct": "the metric of this question: 1 right, 0 wrong",
    "target": "index of the right choice",
    "loglikelihoods": "log-likelihood of each choice, natural logarithm",
}


def text(value) -> str:
    """A value as escaped text; a missing one is a dash."""
    if value is None or (isinstance(value, float) and math.isnan(value)) or value is pd.NA:
        return "–"
    return html.escape(str(value))


def percent(value: float) -> str:
    """A share in print, `53 %`; a dash for a missing one."""
    return "–" if math.isnan(value) else f"{value:.0f} %"


def duration(seconds: float) -> str:
    """Seconds in the unit that reads best; a dash for missing ones."""
    if math.isnan(seconds):
        return "–"
    for size, unit in ((3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} s"


def table(header: list, rows: list, wide=(), names: int = 1) -> str:
    """An HTML table of ready cells; the first `names` columns name the row, those of `wide` hold
    prose. A line stands above a row that begins a new first name.
    """
    heads = "".join(
        f"<th{' class=text' if i < names or i in wide else ''}>{name}</th>"
        for i, name in enumerate(header)
    )
    lines, last = [], None
    for row in rows:
        first = "".join(f"<th>{cell}</th>" for cell in row[:names])
        cells = "".join(
            f"<td{' class=text' if i in wide else ''}>{cell}</td>"
            for i, cell in enumerate(row[names:], names)
        )
        block = ' class="block"' if names > 1 and row[0] != last else ""
        lines.append(f"<tr{block}>{first}{cells}</tr>")
        last = row[0]
    body = "\n".join(lines)
    return (
        f'<div class="scroll"><table><thead><tr>{heads}</tr></thead>\n'
        f"<tbody>{body}</tbody></table></div>"
    )


def word(verdict: str) -> str:
    """A verdict with its colour."""
    known = f' class="{verdict}"' if verdict in ("above", "below") else ""
    return f"<span{known}>{verdict}</span>"


def listed(names: list) -> str:
    """Names in a sentence: `a, b and c`."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def sentences(answers: pd.DataFrame) -> list[str]:
    """The study's answers in words, one base, suite and reference a sentence.

    answers: rows of answers.csv. Means over bases come first where there are several.
    """
    several = answers["suite"].nunique() > 1
    order = sorted(answers["base"].unique(), key=lambda base: base != "average")
    found = []
    for reference, name in REFERENCES.items():
        for base in order:
            for suite in answers["suite"].unique():
                rows = answers[
                    (answers["base"] == base)
                    & (answers["suite"] == suite)
                    & (answers["reference"] == reference)
                ]
                if len(rows):
                    where = "On average over bases" if base == "average" else style.base_label(base)
                    where = html.escape(f"{where}, {suite}" if several else where)
                    found.append(f"<b>{where}:</b> {_sentence(rows, name)}")
    return found


def _sentence(rows: pd.DataFrame, reference: str) -> str:
    if len(rows) > MOST_NAMED:
        return _counts(rows, reference)
    clauses = []
    for verdict, verb in (("above", "better"), ("below", "worse")):
        own = rows[rows["verdict"] == verdict].sort_values("gain", ascending=verdict == "below")
        if len(own):
            gains = [
                f"{html.escape(style.method(r.recipe).label)} by {abs(r.gain):.2f} points "
                f"({interval(r.questions_low, r.questions_high)}"
                + ("; other subsets may differ" if r.draws_low <= 0 <= r.draws_high else "")
                + ")"
                for r in own.itertuples()
            ]
            clauses.append(
                f'<span class="{verdict}">{verb} than {reference}</span>: {listed(gains)}'
            )
    apart = rows[rows["verdict"] == "not told apart"]
    if len(apart) == len(rows):
        return f"no method is told apart from {reference}."
    if len(apart):
        names = [html.escape(style.method(recipe).label) for recipe in apart["recipe"]]
        clauses.append(f"not told apart from it: {listed(names)}")
    return f"{'; '.join(clauses)}."


def _counts(rows: pd.DataFrame, reference: str) -> str:
    clauses = []
    for verdict, verb in (("above", "better"), ("below", "worse")):
        own = rows[rows["verdict"] == verdict]
        if len(own):
            most = own.loc[own["gain"].abs().idxmax()]
            label = html.escape(style.method(most["recipe"]).label)
            clauses.append(
                f'{len(own)} are <span class="{verdict}">{verb} than {reference}</span>, most of '
                f"all {label} by {abs(most['gain']):.2f} points "
                f"({interval(most['questions_low'], most['questions_high'])})"
            )
    clauses.append(f"{(rows['verdict'] == 'not told apart').sum()} are not told apart from it")
    told = f"of {len(rows)} settings {'; '.join(clauses)}."
    return f"{told} The largest difference of so many is flattered by chance."


def answer_table(answers: pd.DataFrame, reference: str) -> str:
    """Mean gain of each method's merges with its intervals, shares and verdict."""
    rows = answers[answers["reference"] == reference]
    bases, recipes = [*dict.fromkeys(answers["base"])], style.order(answers["recipe"])
    place = {"base": bases.index, "recipe": recipes.index}  # the mean over bases comes last
    rows = rows.sort_values(
        ["base", "suite", "recipe"], key=lambda c: c.map(place[c.name]) if c.name in place else c
    )
    several = rows["suite"].nunique() > 1
    lines = []
    for r in rows.itertuples():
        base = style.base_label(r.base) + (f", {r.suite}" if several else "")
        p = "–" if math.isnan(r.p_holm) else f"{r.p_holm:.2g}"
        lines.append(
            [
                text(base), text(style.method(r.recipe).label), int(r.models),
                style.signed(r.gain), interval(r.questions_low, r.questions_high),
                interval(r.draws_low, r.draws_high), p, word(r.verdict), percent(r.share),
                f"{percent(r.share_above)} / {percent(r.share_below)}",
            ]
        )  # fmt: skip
    header = [
        "Base", "Method", "merges", "mean gain", "95 % over questions", "95 % over draws",
        "p, Holm", "verdict", "merges above", "significantly above / below",
    ]  # fmt: skip
    return table(header, lines, names=2)


def picture(path: Path) -> str:
    """A figure with its caption, the picture inside the page."""
    data = path.read_bytes()
    width = int.from_bytes(data[16:20], "big")  # pixels, from the PNG's header
    data = base64.b64encode(data).decode()
    caption = TEXTS / f"{path.stem}.rst"
    told = html.escape(caption.read_text(encoding="utf-8").strip()) if caption.exists() else ""
    name = path.stem.replace("_", " ")
    return (
        f'<figure id="{path.stem}"><h3>{html.escape(name.capitalize())}</h3>'
        f'<div class="scroll"><img alt="{html.escape(name)}" width="{0.7 * width:.0f}" '
        f'src="data:image/png;base64,{data}"></div>'
        f"<figcaption>{told}</figcaption></figure>"
    )


def cost(merges: pd.DataFrame, summaries: list[dict], jobs: dict) -> str:
    """What the run took: seconds, memory and bytes, by recipe and in all.

    jobs: rule -> (runs, seconds) of all rules that keep benchmarks, as `cost.spent` gives them.
    """
    lines = []
    peaks = pd.DataFrame(
        [
            {key: s.get(key) for key in ("recipe", "peak_memory_bytes", "bytes_written")}
            for s in summaries
        ],
        columns=["recipe", "peak_memory_bytes", "bytes_written"],
    )
    once = merges.drop_duplicates(["base", "subset", "recipe"])  # a merge serves all suites
    for recipe in [*style.order(merges["recipe"]), "identity"]:
        own, all_suites = once[once["recipe"] == recipe], merges[merges["recipe"] == recipe]
        peak = peaks.loc[peaks["recipe"] == recipe, "peak_memory_bytes"].max()
        label = "base and checkpoints" if recipe == "identity" else style.method(recipe).label
        lines.append(
            [
                text(label), len(own), duration(own["merge_seconds"].median()),
                duration(own["merge_seconds"].sum(min_count=1)),
                "–" if pd.isna(peak) else f"{peak / 2**30:.1f} GiB",
                duration(all_suites["evaluate_seconds"].median()),
                duration(all_suites["evaluate_seconds"].sum(min_count=1)),
            ]
        )  # fmt: skip
    merge, evaluate = once["merge_seconds"].sum(), merges["evaluate_seconds"].sum()
    written = peaks["bytes_written"].sum() / 1e9
    told = (
        f"<p>{(once['recipe'] != 'identity').sum()} merges in {duration(merge)}, "
        f"{merges['accuracy'].notna().sum()} evaluations in {duration(evaluate)}, added up over "
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


def checkpoints(sheet: list[dict], verdicts: dict, merges, comparisons) -> str:
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
            f"{r.suite}: " * (len(gain) > 1) + f"{style.signed(r.gain)} ({interval(r.low, r.high)})"
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
        relative = verdict and verdict["relative_norm"]
        distance = "–" if relative is None else f"{100 * relative:.2g} %"
        lines.append(
            [
                text(style.base_label(row["base"])), text(row["model"]), text(row["repo"]),
                text((row.get("revision") or "unlocked")[:12]), text(row.get("domain") or None),
                state, distance, "–" if math.isnan(accuracy) else f"{100 * accuracy:.1f}",
                told or "–", text(why or None),
            ]
        )  # fmt: skip
    header = [
        "Base", "checkpoint", "repository", "revision", "domain", "verdict", "distance",
        "accuracy, %", "gain over the base (95 % over questions)", "notes",
    ]  # fmt: skip
    told = (
        "<p>Distance is the norm of the task vector relative to the base's weights; accuracy is "
        "the mean over tasks (and suites) of the checkpoint alone.</p>"
    )
    return told + table(header, lines, wide=(9,), names=3)


def provenance(scores: list[dict], summaries: list[dict], verdicts: dict) -> str:
    """Versions, settings and digests that the numbers hang on."""
    facts = {}
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
        [text(style.base_label(base)), text(model), f"<code>{text(verdict['digest'])}</code>"]
        for (base, model), verdict in sorted(verdicts.items())
    ]
    outputs = [
        [
            text(style.base_label(s["base"])), text(s["subset"]), text(s["recipe"]),
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


def every_merge(merges: pd.DataFrame, comparisons: pd.DataFrame) -> str:
    """All merges with gain, interval and verdict; those without scores are shown as missing."""
    keys = ["base", "subset", "recipe", "suite"]
    tests = comparisons[comparisons["reference"] == "base"][[*keys, "low", "high", "verdict"]]
    rows = merges[merges["recipe"] != "identity"].merge(tests, "left", keys)
    lines = [
        [
            text(style.base_label(r.base)), text(r.suite), text(r.subset),
            text(style.method(r.recipe).label), text(r.members.replace(";", ", ")),
            "–" if math.isnan(r.accuracy) else f"{100 * r.accuracy:.2f}",
            style.signed(r.gain), interval(r.low, r.high),
            "not measured" if math.isnan(r.accuracy)
            else word(r.verdict) if isinstance(r.verdict, str) else "–",
            "–" if math.isnan(r.norm) else f"{r.norm:.4g}",
        ]
        for r in rows.itertuples()
    ]  # fmt: skip
    header = [
        "Base", "suite", "subset", "method", "members", "accuracy, %", "gain",
        "95 % over questions", "verdict", "norm",
    ]  # fmt: skip
    return table(header, lines, wide=(4,), names=4)


def dictionary(frames: dict) -> str:
    """What each column of the study's CSV files means."""
    lines = [
        [
            f"<code>{column}</code>",
            ", ".join(name for name, frame in frames.items() if column in frame),
            html.escape(meaning).replace("`", ""),
        ]
        for column, meaning in DICTIONARY.items()
    ]
    more = {"checkpoints": CHECKPOINTS, "tables/*.csv": TABLES, "*.items.parquet": ITEMS}
    lines += [
        [f"<code>{name}</code>", file, told]
        for file, columns in more.items()
        for name, told in columns.items()
    ]
    return table(["Column", "files", "meaning and unit"], lines, wide=(1, 2))


METHOD_TEXT = f"""
<ul>
<li><b>Accuracy</b> is the plain mean over the suite's tasks, as in the paper; a gain is a
difference of accuracies in percentage points.</li>
<li><b>95 % over questions</b>: what would vary with other questions of the same tasks, these very
models given. Paired bootstrap: {stats.RESAMPLES} resamples of the questions within each task, the
same for all models.</li>
<li><b>95 % over draws</b>: what would vary with other subsets of the same size from the same
checkpoints, these very questions given. Bootstrap of the draws within each size, widened to
Student's quantile (few draws), narrowed for the part of all subsets that was drawn. No interval
where one draw was made or all subsets were.</li>
<li><b>Test</b>: paired, question by question (McNemar's test carried over to a mean of tasks), two
sided. Each merge's p-value is corrected for all merges of the study by Benjamini and Hochberg: over
many such studies at most 5 % of the merges called above or below are so by chance; in one study
the errors come together, since all merges are compared with one base on the same questions. A
method's mean gain is corrected by Holm for all rows of its table: 5 % chance of any false verdict.
Both are about these very merges: whether a method is better for other subsets, too, is what the
interval over draws tells.</li>
<li>Questions count as independent. In <code>leaderboard_gpqa</code> (nested sets) and
<code>headqa</code> (two languages) a question comes back up to three times: their own intervals
are up to 1.5 times too narrow, those of the mean over 16 tasks by less than a tenth.</li>
<li><b>Best single checkpoint</b>: the maximum of several noisy scores lies above the truth.
Here the best one is chosen on one half of the questions of each task and compared with on the
other half, which has no such bias but wider intervals; the table in the paper's manner chooses and
compares on all questions.</li>
<li><b>Not told apart</b> is not "equal": the questions are too few to see a difference as small as
the interval is wide.</li>
</ul>
"""


def _asked(scores: pd.DataFrame) -> str:
    """How many questions of how many tasks each model was asked, by suite."""
    found = []
    once = scores.drop_duplicates(["base", "suite", "task"])
    for suite, rows in once.groupby("suite", sort=False):
        sizes = rows.groupby("base")["questions"].agg(["sum", "size"]).drop_duplicates()
        told = [f"{int(questions)} questions of {tasks} tasks" for questions, tasks in sizes.values]
        found.append(f"{' or '.join(told)} ({suite})")
    return listed(found)


def build(name, study, frames, figures, tables, verdicts, sheet, plan, jobs=None) -> str:
    """Make the report of a study.

    name, study: its name and YAML; frames: scores, merges, comparisons, intervals and answers by
    name; figures: PNG paths; tables: HTML paths; verdicts: paths of task vector JSONs; sheet: rows
    of models.tsv of the study's models; plan: as for `scores.read`; jobs: as for `cost`.
    Returns the HTML page.
    """
    merges, answers = frames["merges"], frames["answers"]
    verdicts = [read_json(path) for path in verdicts]
    verdicts = {(v["base"], v["model"]): v for v in verdicts}
    scores = [read_json(row["scores"]) for row in plan if Path(row["scores"]).exists()]
    paths = dict.fromkeys(row["summary"] for row in plan if row["summary"])
    summaries = [read_json(path) for path in paths if Path(path).exists()]
    measured = merges.dropna(subset="accuracy")
    missing = len(merges) - len(measured)
    asked = _asked(frames["scores"])
    ratio = frames["comparisons"]["width_to_unpaired"].median()
    merged = measured["recipe"] != "identity"
    bases = (measured["subset"] == "base").sum()
    lead = (
        f"{merged.sum()} merges, {((measured['n'] == 1) & ~merged).sum()} single checkpoints and "
        f"{bases} base{'' if bases == 1 else 's'}, each on {asked}."
    )
    if missing:
        lead += f" <b>{missing} planned models have no scores yet</b> and are left out."
    said = "".join(f"<li>{sentence}</li>" for sentence in sentences(answers))
    narrower = (
        ""
        if math.isnan(ratio)
        else f"<p>Pairing the answers of two models to the same question makes the interval of a "
        f"gain {100 * (1 - ratio):.0f} % narrower than two separate samples would (median).</p>"
    )
    first = [path for path in figures if path.stem == "gain_by_method"]
    rest = [path for path in figures if path not in first]
    parts = {
        "Answers": f"<ul>{said}</ul>"
        + "<p class=soft>Mean gain over all merges of a method; in brackets the 95 % interval over "
        "questions. How it is computed stands under <a href='#statistics'>Statistics</a>.</p>"
        + "".join(map(picture, first))
        + "<h3>Merges against their base</h3>"
        + answer_table(answers, "base")
        + (
            "<h3>Merges against the best single checkpoint</h3>" + answer_table(answers, "best")
            if (answers["reference"] == "best").any()
            else ""
        )
        + narrower,
        "Figures": "".join(map(picture, rest)),
        "Tables": "".join(
            f"<h3>{html.escape(path.stem.replace('_', ' ').capitalize())}</h3>"
            f"<div class=scroll>{path.read_text(encoding='utf-8')}</div><p class=soft>"
            + html.escape((TEXTS / f"{path.stem}.rst").read_text(encoding="utf-8").strip())
            + "</p>"
            for path in tables
        ),
        "Cost": cost(merges, summaries, jobs or {}),
        "Checkpoints": checkpoints(sheet, verdicts, merges, frames["comparisons"]),
        "Statistics": METHOD_TEXT,
        "Versions and digests": provenance(scores, summaries, verdicts),
        "All merges": "<details><summary>Every merge with its gain</summary>"
        + every_merge(merges, frames["comparisons"])
        + "</details>",
        "Data": f"<p>{listed([f'<a href={n}.csv>{n}.csv</a>' for n in frames])} lie beside this "
        "file.</p><details><summary>Data dictionary</summary>" + dictionary(frames) + "</details>",
    }
    parts = {title: body for title, body in parts.items() if body}
    anchors = {title: title.split()[0].lower() for title in parts}
    links = "".join(f'<a href="#{anchors[title]}">{title}</a>' for title in parts)
    body = "\n".join(
        f'<h2 id="{anchors[title]}">{title}</h2>\n{content}' for title, content in parts.items()
    )
    css = (TEXTS / "report.css").read_text(encoding="utf-8")
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<link rel="icon" href="data:,">\n<title>wildmerge: {text(name)}</title>\n'
        f"<style>\n{css}</style></head>\n<body>\n<h1>Study {text(name)}</h1>\n"
        f'<p class="lead">{text(study["description"])}</p>\n<p>{lead}</p>\n'
        f"<nav>{links}</nav>\n{body}\n</body></html>\n"
    )
