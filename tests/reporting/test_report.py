"""The report: answers first, nothing missing shown as a number, opens in a real browser."""

import html.parser
import importlib
import json
import re
import shutil
import subprocess
import time
from pathlib import Path

import pandas as pd
import pytest
import simulate
from drawing import PAPERS, inputs
from project import ROOT
from wildmerge.analysis import Facts, calibrate_study, compare_study, gather, scores
from wildmerge.reporting.answers import sentences
from wildmerge.reporting.dictionary import COLUMNS
from wildmerge.reporting.headlines import headlines
from wildmerge.reporting.looks import Looks
from wildmerge.reporting.model_card import model_card
from wildmerge.reporting.numbers import interval, percent, signed
from wildmerge.reporting.page import build_page
from wildmerge.reporting.plots import save

FIGURES = [
    "gain_by_method",
    "accuracy_by_n",
    "norm_by_n",
    "task_accuracy",
    "gain_by_merge",
    "task_gains",
    "gain_by_norm",
    "membership",
]
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


def script(kind, name):
    return importlib.import_module(f"wildmerge.reporting.{kind}.{name}")


def make(folder, plan, bases, pool, figures=FIGURES):
    """Everything from score files to the page, as the rules do it; returns the page."""
    frames = dict(zip(("scores", "merges"), scores.read(plan), strict=True))
    contrast = {"name": "a contrast", "a": ["task_arithmetic"], "b": ["iso_c"]}
    frames |= compare_study(gather(plan, Facts(contrasts=[contrast])))
    frames["calibrated"] = calibrate_study(plan)
    pictures, tables = [], []
    for name in figures:
        pictures.append(folder / f"{name}.png")
        drawn = script("figures", name).draw(inputs(**frames))
        save(drawn, folder / f"{name}.pdf", pictures[-1])
    for name in ("success_rate", "significance", "best_checkpoint"):
        made = script("tables", name)
        files = [ROOT / "config" / f"{n}.csv" for n in made.INPUTS if n.startswith("published/")]
        printed = {path.stem: pd.read_csv(path) for path in files}
        tables.append(folder / f"{name}.html")
        tables[-1].write_text(made.make(inputs(published=printed, **frames))[2], encoding="utf-8")
    sheet, verdicts = [], []
    for base in bases:
        sheet.append({"base": base, "model": "base", "repo": "org/base", "revision": "0" * 40,
                      "license": "gemma", "gated": "yes", "domain": "", "note": ""})  # fmt: skip
        for i in range(pool):
            model = f"expert-{i + 1:02d}"
            sheet.append({"base": base, "model": model, "repo": f"<b>/{model}", "revision": "",
                          "domain": "math", "note": "a note",
                          "admit": "a test" if i == 0 else ""})  # fmt: skip
            verdict = {"base": base, "model": model, "compatible": i > 1, "overridable": i == 0,
                       "reasons": ["NaN in lm_head"] if i == 1 else [], "conversions": [],
                       "warnings": ["far from its family"], "digest": "c" * 64 if i != 1 else None,
                       "relative_norm": 0.0123 if i != 1 else None}  # fmt: skip
            verdicts.append(folder / f"{base}-{model}.json")
            verdicts[-1].write_text(json.dumps(verdict))
    page = build_page("test", {"description": "A test & more."}, frames, pictures, tables,
                        verdicts, sheet, plan, PAPERS)  # fmt: skip
    return page, frames, sheet


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A study with a merge without scores, a size of one draw, two bases."""
    folder = tmp_path_factory.mktemp("report")
    bases, tasks = ["first", "second"], {"piqa": 60, "boolq": 40}
    plan = simulate.study(folder, bases, 4, {2: 3, 4: 1}, ["task_arithmetic", "iso_c"], tasks)
    lost = {"scores": str(folder / "none.json"), "items": str(folder / "none.parquet")}
    plan[-1] |= lost
    page, frames, sheet = make(folder, plan, bases, 4)
    path = folder / "report.html"
    path.write_text(page, encoding="utf-8")
    return path, page, frames, sheet, plan


class Reader(html.parser.HTMLParser):
    """Collects texts, links and attributes; fails on tags that are not closed in order."""

    VOID = ("meta", "link", "img", "br")

    def __init__(self):
        super().__init__()
        self.open, self.texts, self.sources, self.ids = [], [], [], []

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.ids += [attrs["id"]] if "id" in attrs else []
        self.sources += [attrs[key] for key in ("src", "href") if key in attrs]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not {"style", "script"} & set(self.open):
            self.texts.append(" ".join(data.split()) if data.strip() else data)


@pytest.fixture(scope="module")
def reader(small):
    found = Reader()
    found.feed(small[1])
    assert found.open == []
    return found


def test_page_is_whole_and_needs_nothing_from_outside(reader, small):
    for source in reader.sources:
        assert re.match(r"data:|#|[a-z]+\.csv$", source), source
    assert {s[1:] for s in reader.sources if s.startswith("#")} <= set(reader.ids)
    assert len([s for s in reader.sources if s.startswith("data:image/png")]) == len(FIGURES)
    assert not re.search(r"<script [^>]*src|@import", small[1])


def test_nothing_missing_is_printed_as_a_number(reader, small):
    text = " ".join(reader.texts)
    assert not re.search(r"\b(nan|NaN|None|inf|<NA>)\b", text.replace("NaN in lm_head", ""))
    assert "not measured" in text
    plain = " ".join(text.split())
    assert "14 of 16 planned merges count" in plain and "its subset lacks iso_c" in plain
    # The size of one draw lost a merge.
    assert "second sim 4 of 4 3 of 3 0 of 1" in plain
    assert "–" in text


def test_answers_come_first(reader):
    text = " ".join(reader.texts)
    assert text.index("Answers") < text.index("Figures") < text.index("Cost")
    assert text.index("mean gain") < text.index("Accuracy by n")


def test_texts_from_sheets_are_escaped(small):
    assert "<b>/expert" not in small[1]
    assert "&lt;b&gt;/expert-01" in small[1]
    assert "A test &amp; more." in small[1]


def test_checkpoints_versions_and_digests_are_told(reader):
    text = " ".join(reader.texts)
    for told in (
        "NaN in lm_head",
        "not usable",
        "admitted: a test",
        "unlocked",
        "0.4.13",
        "5" * 64,
        simulate.digest({"base": "first", "subset": "n02-01"}, "iso_c"),
    ):
        assert told in text


def test_licences_and_gates_of_the_checkpoints_are_told(reader):
    assert reader.texts.count("gemma (gated)") == 2  # the base of both families
    assert reader.texts.count("not known") == 8


def test_every_column_of_the_data_is_explained(small):
    for frame in small[2].values():
        assert set(frame) <= set(COLUMNS)
    columns = set().union(*small[2].values())
    assert set(COLUMNS) <= columns


def test_significance_stands_below_the_shares(small):
    frames = small[2]
    cells, tex, page = script("tables", "significance").make(inputs(**frames))
    row = cells.query("base == 'first' and recipe == 'iso_c' and n == 2").iloc[0]
    found = (
        frames["intervals"]
        .query("base == 'first' and recipe == 'iso_c' and n == 2 and reference == 'base'")
        .iloc[0]
    )
    assert row["gain"] == pytest.approx(found["gain"])
    assert row["questions_low"] == found["questions_low"]
    told = interval(found["questions_low"], found["questions_high"])
    assert f"<small>{told}</small>" in page
    alone = cells.query("base == 'first' and recipe == 'iso_c' and n == 1").iloc[0]
    assert alone["combinations"] == 4
    assert alone["questions_low"] < alone["gain"] < alone["questions_high"]
    assert not {"nan", "None"} & set(re.findall(r"\w+", page + tex))
    assert "over draws" in tex


def test_sentences_say_what_the_numbers_say():
    row = {"base": "qwen3-4b", "suite": "paper", "reference": "base", "questions_low": 0.2}
    row |= {"draws_low": float("nan"), "draws_high": float("nan")}
    answers = pd.DataFrame(
        [
            row | {"recipe": "ties", "gain": 0.5, "questions_high": 0.8, "verdict": "above"},
            row | {"recipe": "iso_c", "gain": -2.0, "questions_high": 0.8, "verdict": "below"},
            row | {"recipe": "tsv_m", "gain": 0.1, "questions_high": 0.8,
                   "verdict": "not told apart"},
        ]
    )  # fmt: skip
    (sentence,) = sentences(answers, Looks(PAPERS))
    assert re.sub("<.*?>", "", sentence) == (
        "Qwen3 4B: better than the base: TIES by 0.50 points (+0.20 to +0.80 over questions); "
        "worse than the base: Iso-C by 2.00 points (+0.20 to +0.80 over questions); not told apart "
        "from it: TSV-M."
    )
    (sentence,) = sentences(answers.iloc[[2]], Looks(PAPERS))
    assert sentence.endswith("no method is told apart from the base.")


def test_numbers_in_print():
    assert interval(float("nan"), float("nan")) == "–"
    assert interval(-0.001, 0.5) == "0.00 to +0.50"
    assert percent(float("nan")) == "–"


def test_model_card_tells_inputs_scores_and_intervals(small):
    _, _, frames, sheet, plan = small
    row = next(r for r in plan if r["n"] == 2 and r["recipe"] == "iso_c")
    summary = json.loads(Path(row["summary"]).read_text())
    score = json.loads(Path(row["scores"]).read_text())
    licensed = [row | {"license": "llama3.2"} if row["model"] == "base" else row for row in sheet]
    card = model_card(summary, [score], frames["comparisons"], licensed)
    assert card.startswith("---\nbase_model:\n- org/base\n")
    assert card.count("| a note |") == 2
    assert card.count("| llama3.2 |") == 1 and card.count("| not known |") == 2
    assert "Licences of the inputs: llama3.2 (of 2 of 3 not known)" in card
    assert "licence in every repository above" in card
    assert summary["output_digest"] in card
    own = frames["comparisons"].query(
        "base == @row['base'] and subset == @row['subset'] and recipe == 'iso_c'"
    )
    for found in own.itertuples():
        assert f"| {signed(found.gain)} | {interval(found.low, found.high)}" in card
    assert f"mean over tasks | | | {100 * score['accuracy']:.2f} | " in card
    piqa = score["tasks"]["piqa"]
    low = 100 * (piqa["value"] - 1.96 * piqa["stderr"])
    assert f"| {100 * piqa['value']:.2f} | {low:.1f} to " in card


PROBE = """<script>
const errors = [];
addEventListener("error", e => errors.push(String(e.message || e.target.src)), true);
addEventListener("load", () => { const t = performance.getEntriesByType("navigation")[0];
  const images = [...document.images];
  document.title = JSON.stringify({errors, images: images.length, width: innerWidth,
    broken: images.filter(i => !i.complete || !i.naturalWidth).length,
    page: document.documentElement.scrollWidth, ms: t.domContentLoadedEventEnd}); });
</script></head>"""


def opened(path, width, script=PROBE, height=900):
    """Open a page in a headless browser of this width; what the page reports, and seconds."""
    probe = path.with_name(f"probe-{width}-{hash(script)}.html")
    probe.write_text(path.read_text(encoding="utf-8").replace("</head>", script, 1))
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"]
    command += ["--virtual-time-budget=9000", f"--window-size={width},{height}", f"file://{probe}"]
    start = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    seconds = time.perf_counter() - start
    title = re.search(r"<title>(.*?)</title>", done.stdout, re.S).group(1)
    return json.loads(title.replace("&quot;", '"')), seconds


@pytest.mark.skipif(not CHROMIUM, reason="no browser: apt-get install chromium")
@pytest.mark.parametrize("width", [1280, 500])  # the narrowest window that chromium opens
def test_page_opens_in_a_browser(small, width):
    told, _ = opened(small[0], width)
    assert told["errors"] == []
    assert told["images"] == len(FIGURES)
    assert told["broken"] == 0
    assert told["page"] <= told["width"]  # wide tables scroll by themselves, not the page


FIRST_SCREEN = """<script>
addEventListener("load", () => document.title = JSON.stringify({
  answers: [...document.querySelectorAll(".headlines article")].map(a => ({
    question: a.querySelector("h2").textContent,
    answer: a.querySelector(".answer").textContent,
    bottom: a.getBoundingClientRect().bottom })),
  height: innerHeight }));
</script></head>"""


@pytest.mark.skipif(not CHROMIUM, reason="no browser: apt-get install chromium")
def test_three_questions_are_answered_on_the_first_screen(small):
    told, _ = opened(small[0], 1280, FIRST_SCREEN, height=800)
    questions = [answer["question"] for answer in told["answers"]]
    assert questions == ["Which method?", "Which merge?", "Would mine gain?"]
    assert all(answer["answer"] for answer in told["answers"])
    assert max(answer["bottom"] for answer in told["answers"]) <= 800


def answered(gain=1.0, **changes):
    """A row of answers.csv."""
    row = {"base": "qwen3-4b", "suite": "paper", "reference": "base", "models": 10, "share": 80.0}
    row |= {"gain": gain, "both_low": gain - 0.5, "both_high": gain + 0.5, "population": "both"}
    row |= {"questions_low": gain - 0.2, "questions_high": gain + 0.2, "mde": 0.7}
    row |= {"checkpoints_low": gain - 2, "checkpoints_high": gain + 2, "verdict": "above"}
    return row | {"share_null_low": 10.0, "share_null_high": 90.0} | changes


def first_screen(*rows, pairs=()):
    names = ["base", "suite", "n", "contrast", "a", "b", "verdict"]
    pairs = [("qwen3-4b", "paper", "all", "", *pair) for pair in pairs]
    frames = {"answers": pd.DataFrame(rows), "methods": pd.DataFrame(pairs, columns=names)}
    frames |= {"best": pd.DataFrame(), "comparisons": pd.DataFrame()}
    return headlines("mine", frames, Looks(PAPERS), 0.5)


def test_the_first_screen_names_the_method_and_what_it_is_better_than():
    rows = [answered(recipe="ties"), answered(2.5, recipe="tsv_m"), answered(0.1, recipe="iso_c")]
    pairs = [("ties", "tsv_m", "below"), ("tsv_m", "iso_c", "above")]
    method, mine = first_screen(*rows, pairs=pairs)
    assert (method.answer, method.verdict) == ("TSV-M", "above")
    said = " ".join(method.sentences)
    assert "+2.50 points (+2.00 to +3.00)" in said
    assert "better than TIES and Iso-C" in said and "Not shown" not in said
    assert mine.answer == "Yes, on average, by TSV-M" and mine.verdict == "above"
    method, _ = first_screen(*rows, pairs=[("ties", "tsv_m", "not told apart")])
    assert method.answer == "TSV-M leads, and is better than the base"
    assert "Not shown to be better than TIES." in method.sentences


@pytest.mark.parametrize(
    ("verdict", "gain", "answer", "mine"),
    [
        ("not told apart", 0.4, "None is shown to be better than the base",
         "Not shown: -1.60 to +2.40 points"),
        ("equal", 0.1, "None: TIES, the first, equals the base within 0.5 points",
         "Not shown: -1.90 to +2.10 points"),
        ("below", -3.0, "None: each loses against the base", "No: TIES would lose on average"),
    ],
)  # fmt: skip
def test_the_first_screen_says_what_was_not_shown(verdict, gain, answer, mine):
    method, other = first_screen(answered(gain, recipe="ties", verdict=verdict))
    assert (method.answer, other.answer) == (answer, mine)
    assert ("can show a gain of 0.7 points" in " ".join(method.sentences)) == (verdict != "below")


def test_without_other_checkpoints_the_first_screen_says_why():
    none = float("nan")
    row = answered(recipe="ties", checkpoints_low=none, checkpoints_high=none)
    _, mine = first_screen(row)
    assert mine.answer == "This study can't say" and "five draws" in mine.sentences[0]


def test_the_best_merge_is_named_with_its_bounds_and_its_path(small):
    frames = small[2]
    _, merge, _ = headlines("test", frames, Looks(PAPERS), 0.5)
    best = frames["best"].sort_values("gain", ascending=False).iloc[0]
    assert best["subset"] in merge.answer
    said = " ".join(map(str, merge.sentences))
    assert "corrected for having been picked as the best of" in said
    assert interval(best["low"], best["high"]) in said
    assert f"kept/{best['base']}/{best['subset']}/{best['recipe']}/README.md" in said
    own = frames["comparisons"].query(
        "reference == 'own' and base == @best['base'] and subset == @best['subset'] "
        "and recipe == @best['recipe']"
    )
    assert own["reference_model"].item() in said


SORT_AND_FILTER = """<script>
addEventListener("load", () => setTimeout(() => {
  const place = document.querySelector("#every-merge-interactive");
  const column = name => [...place.querySelectorAll(".tabulator-col")].find(
    c => c.querySelector(".tabulator-col-title").textContent === name);
  const shown = name => [...place.querySelectorAll(".tabulator-row")].map(row =>
    row.querySelector(`[tabulator-field=${column(name).getAttribute("tabulator-field")}]`).textContent);
  const told = {plain: document.querySelector("#every-merge").checkVisibility()};
  told.rows = shown("gain").length;
  column("gain").querySelector(".tabulator-col-title").click();
  told.ascending = shown("gain");
  const box = column("subset").querySelector("input");
  box.value = "n02-01";
  box.dispatchEvent(new KeyboardEvent("keyup"));
  box.dispatchEvent(new Event("search"));
  setTimeout(() => {
    told.subsets = shown("subset");
    const least = column("gain").querySelector("input");
    least.value = "0";
    least.dispatchEvent(new Event("search"));
    setTimeout(() => {
      told.at_least_zero = shown("gain");
      told.requests = performance.getEntriesByType("resource").map(
        r => r.name).filter(name => !name.startsWith("data:"));
      document.title = JSON.stringify(told);
    }, 1000);
  }, 1000);
}, 500));
</script></head>"""


@pytest.mark.skipif(not CHROMIUM, reason="no browser: apt-get install chromium")
def test_merges_sort_and_filter_in_a_browser(small):
    told, _ = opened(small[0], 1280, SORT_AND_FILTER)
    gains = [float(gain) for gain in told["ascending"] if gain != "–"]
    assert len(gains) == told["rows"] - 2 > 8  # one merge has no scores, its subset is left out
    assert gains == sorted(gains)
    assert set(told["subsets"]) == {"n02-01"} and len(told["subsets"]) == 4
    assert all(float(gain) >= 0 for gain in told["at_least_zero"])
    expected = small[2]["merges"].query("subset == 'n02-01' and gain >= 0")
    assert len(told["at_least_zero"]) == len(expected)
    assert not told["plain"]  # the plain table has made room
    assert told["requests"] == []


def test_merges_are_read_without_scripts(small):
    page = re.sub("<script>.*?</script>", "", small[1], flags=re.S)
    rows = re.search('<table id="every-merge".*?</table>', page, re.S).group().count("<tr")
    assert rows == 1 + (small[2]["merges"]["recipe"] != "identity").sum()


@pytest.mark.slow
def test_two_thousand_merges_are_reported_in_time(tmp_path):
    """The paper's study by numbers: 4 bases, 2,128 merges, here on 6 tasks of 200 questions."""
    bases = ["llama-3.2-3b", "qwen3-4b", "llama-3.1-8b", "qwen3-8b"]
    plan = simulate.study(tmp_path, bases, tasks={f"task_{i}": 200 for i in range(6)})
    assert sum(row["n"] > 1 for row in plan) == 2128
    start = time.process_time()  # of one thread: what else runs here does not count
    page, _, _ = make(tmp_path, plan, bases, 12)
    seconds = time.process_time() - start
    path = tmp_path / "report.html"
    path.write_text(page, encoding="utf-8")
    print(f"made in {seconds:.0f} CPU seconds, {path.stat().st_size / 1e6:.1f} MB")
    assert seconds < 60
    assert path.stat().st_size < 10e6
    if CHROMIUM:
        told, wall = opened(path, 1280)
        print(f"opened in {told['ms'] / 1000:.2f} s, {wall:.1f} s with the browser's start")
        assert told["broken"] == 0
        assert wall < 10
        assert told["ms"] < 3000
