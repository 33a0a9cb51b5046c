"""Study `wild`'s design where one checkpoint is refused and one has vanished: both ways on."""

import hub as hubs
import pandas as pd
import pico
import pytest
import yaml
from project import ROOT, Project, counts, make_project, models_sheet, wildmerge
from wildmerge.analysis import read_table
from wildmerge.cli import lock as lock_command

pytestmark = pytest.mark.slow

EXPERTS = ["ann", "bob", "cat", "dan"]
BASES = ["ape", "bee"]
# Its weights went too far to be a fine-tune; its repository is gone after it was locked.
REFUSED, VANISHED = "ape/dan", "bee/cat"
DESIGN = yaml.safe_load((ROOT / "config/studies/wild.yaml").read_text()) | {
    "bases": BASES,
    "sizes": [2, 3, 4],
    "draws": 4,
    "recipes": ["task_arithmetic", "ties"],
    "suites": ["few"],
}


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Project:
    """The study over two bases of five experts on a hub; nothing has run."""
    folder = tmp_path_factory.mktemp("missing")
    with pytest.MonkeyPatch.context() as patch, hubs.serve() as server:
        patch.setenv("HF_ENDPOINT", server.url)
        patch.setenv("HF_HUB_OFFLINE", "0")
        patch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
        rows = []
        for seed, base in enumerate(BASES):
            made = {"base": pico.llama(folder / base / "base", seed=seed)}
            for i, name in enumerate(EXPERTS, start=1):
                scale = 3 if f"{base}/{name}" == REFUSED else 0.3
                made[name] = pico.expert(made["base"], folder / base / name, seed=i, scale=scale)
            for name, path in made.items():
                server.repositories[f"{base}/{name}"] = hubs.Repository(hubs.from_folder(path))
                row = {"base": base, "model": name, "repo": f"{base}/{name}"}
                rows.append(row | ({"gb": "0.01"} if name == "base" else {"pool": "wild"}))
        project = make_project(folder / "project", folder / "ape/base", {})
        (project.folder / "config/studies/pico.yaml").unlink()
        project.write("config/models.tsv", models_sheet(rows))
        project.write("config/studies/wild.yaml", DESIGN)
        choices = yaml.safe_load((ROOT / "config/config.yaml").read_text())
        project.write("config/config.yaml", choices | {"studies": ["wild"]})
        assert lock_command.update(project.folder / "config") == 0
        del server.repositories[VANISHED]
        yield project


@pytest.fixture(scope="module")
def stopped(project) -> tuple[Project, str, str]:
    """The project after its first run, what its preflight and that run said."""
    before = project.snakemake("results/studies/wild/preflight.json", check=False)
    run = project.snakemake("wild", check=False)
    assert before.returncode and run.returncode
    return project, before.stdout + before.stderr, run.stdout + run.stderr


@pytest.fixture(scope="module")
def gone_on(stopped) -> tuple[Project, dict[str, int], dict[str, pd.DataFrame]]:
    """Gone on with: the jobs that were done, the CSV files."""
    project = stopped[0]
    said = wildmerge("missing", "wild", "--write", cwd=project.folder).stdout
    assert "2 written to `missing`" in said and "12 of 36 planned scores of merges" in said
    path = project.folder / "config/studies/wild.yaml"
    study = yaml.safe_load(path.read_text())
    assert set(study["missing"]) == {REFUSED, VANISHED}
    assert study == DESIGN | {"missing": study["missing"]}
    # A merge that failed, as far as the study can see.
    project.write("config/studies/wild.yaml", path.read_text() + "  bee/n02-02/ties: it diverged\n")
    jobs, _ = run_of(project, "wild")
    return project, jobs, frames(project, "wild")


@pytest.fixture(scope="module")
def again(gone_on) -> tuple[Project, dict[str, int], dict[str, pd.DataFrame], set]:
    """Drawn again under another name: the jobs, the CSV files, the merges that were there."""
    project = gone_on[0]
    held = {tuple(p.parts[-4:-1]) for p in project.folder.glob("results/scores/*/*/*/few.json")}
    study = DESIGN | {"without": [REFUSED, VANISHED], "figures": ["gain_by_method"]}
    project.write("config/studies/wild_again.yaml", study)
    jobs, _ = run_of(project, "wild_again")
    return project, jobs, frames(project, "wild_again"), held


def test_the_preflight_finds_the_vanished_row_and_names_the_ways_on(stopped):
    _, said, run = stopped
    assert f"1 of 10 cannot be used: {VANISHED}" in said
    for way in ("config/models.tsv", f"without: [{VANISHED}]", f"missing: {{{VANISHED}: why}}"):
        assert way in said
    assert "config/studies/wild.yaml" in said and "wildmerge missing wild" in said
    # The other's weights are read before it can be refused.
    assert f"without: [{REFUSED}]" in run


def run_of(project, *arguments) -> tuple[dict[str, int], str]:
    """Run the study; the jobs that it did by rule, and what it said."""
    done = project.snakemake(*arguments)
    said = done.stdout + done.stderr
    return counts(said), said


def frames(project, study) -> dict[str, pd.DataFrame]:
    """The CSV files of a study."""
    folder = project.folder / "results/studies" / study
    files = [*folder.glob("*.csv"), *folder.glob("tables/*.csv")]
    return {path.stem: read_table(path) for path in files}


def assert_methods_are_compared_on_the_same_subsets(found: dict[str, pd.DataFrame]) -> None:
    """From the CSV files alone: of a base and suite, every method has numbers on the same subsets;
    and every cell's k is the number of them, its K the number that was planned."""
    merged = found["merges"][found["merges"]["recipe"] != "identity"]
    counted = merged.dropna(subset="accuracy")
    assert set(merged.loc[merged["left_out"] == "", "subset"]) == set(counted["subset"])
    assert counted[["gain", "gain_over_best", "norm"]].notna().all(axis=None)
    assert merged[merged["left_out"] != ""][["gain", "norm"]].isna().all(axis=None)
    tested = found["comparisons"][found["comparisons"]["n"] > 1]
    scored = found["scores"][found["scores"]["recipe"] != "identity"]
    for frame, keys in (
        (counted, ["base", "suite"]),
        (scored, ["base", "suite", "task"]),
        (tested, ["base", "suite", "reference"]),
    ):
        for _, rows in frame.groupby(keys):
            subsets = rows.groupby("recipe")["subset"].agg(frozenset)
            assert set(subsets.index) == set(DESIGN["recipes"])
            assert subsets.nunique() == 1
    cells = [
        (found["intervals"], ["base", "recipe", "n"], "models"),
        (found["answers"], ["base", "recipe"], "models"),
        *((found[name], ["base", "recipe", "n"], "combinations") for name in DESIGN["tables"]),
    ]
    for frame, keys, k in cells:
        rows = frame[(frame["base"] != "average") & (frame["recipe"] != "identity")]
        rows = rows[rows["n"] > 1] if "n" in keys else rows
        got = rows.drop_duplicates(keys).set_index(keys)[[k, "planned"]].sort_index()
        size = merged.groupby(keys)["accuracy"].agg(["count", "size"]).loc[got.index]
        assert got.to_numpy().tolist() == size.to_numpy().tolist()


def test_the_study_ends_with_gaps_that_all_methods_share(gone_on):
    project, jobs, found = gone_on
    # What was made is not made again, and nothing is tried again.
    assert not jobs.keys() & {"download", "task_vector", "admit", "merge", "evaluate"}
    assert project.jobs("wild") == {}
    assert_methods_are_compared_on_the_same_subsets(found)
    merges = found["merges"]
    missing = merges[merges["left_out"] != ""]
    assert len(missing) < len(merges)
    held = (missing["base"] == "ape") & missing["members"].str.contains("dan")
    held |= (missing["base"] == "bee") & missing["members"].str.contains("cat")
    # And one merge, whose subset counts for no method.
    rest = missing[~held]
    assert set(rest["subset"]) == {"n02-02"} and set(rest["base"]) == {"bee"}
    assert rest.set_index("recipe")["left_out"].to_dict() == {
        "ties": "missing (it diverged)",
        "task_arithmetic": "its subset lacks ties",
    }
    # Of each base one subset of all four was planned, and none is there.
    cells = found["success_rate"].set_index(["base", "recipe", "n"])
    for base, left in {"ape": (3, 1, 1, 0), "bee": (3, 2, 1, 0)}.items():
        own = cells.loc[base].loc["ties"]
        assert own["combinations"].tolist() == list(left)
        assert own["planned"].tolist() == [4, 4, 4, 1]
    page = (project.folder / "results/studies/wild/report.html").read_text()
    for words in ("Missing", "1 of 4", "0 of 1", REFUSED, VANISHED, "it diverged", "not exist"):
        assert words in page


def test_the_study_is_drawn_again_and_shares_what_never_held_them(again):
    project, jobs, found, before = again
    assert not jobs.keys() & {"download", "task_vector"}
    merged = found["merges"][found["merges"]["recipe"] != "identity"]
    assert (found["merges"]["left_out"] == "").all()
    assert_methods_are_compared_on_the_same_subsets(found)
    # All draws of two and of three that there are without one of four; of four there is none.
    subsets = merged.drop_duplicates(["base", "subset"]).groupby(["base", "n"]).size()
    assert subsets.to_dict() == {(b, n): k for b in BASES for n, k in ((2, 3), (3, 1))}
    keys = ["base", "subset", "recipe"]
    ours = set(merged[keys].itertuples(index=False, name=None))
    shared = ours & before
    assert jobs["merge"] == jobs["evaluate"] == len(ours - shared) == 2 * 2
    assert all(subset.startswith("w") for _, subset, _ in ours - shared)
    page = (project.folder / "results/studies/wild_again/report.html").read_text()
    assert "drawn without" in page and REFUSED in page
