"""How far a run is, read from Snakemake's own logs."""

import pytest
from project import wildmerge
from wildmerge.run.progress import read_log
from wildmerge.words import duration

LOG = """\
Building DAG of jobs...
Job stats:
job         count
--------  -------
merge           3
evaluate        4
demo            1
total           8

Select jobs to execute...
[Sun Nov 22 05:00:00 2026]
rule merge:
    output: results/merges/b/n02-01/ties/model
    jobid: 1
    wildcards: base=b
[Sun Nov 22 05:00:00 2026]
localrule merge:
    jobid: 2
[Sun Nov 22 05:00:10 2026]
Finished jobid: 1 (Rule: merge)
1 of 8 steps (12%) done
[Sun Nov 22 05:00:10 2026]
rule evaluate:
    jobid: 3
[Sun Nov 22 05:00:15 2026]
Error in rule merge:
    message: None
    jobid: 2
    output: results/merges/b/n02-02/ties/model
"""


def test_jobs_are_counted_by_rule_and_state():
    rules = read_log(LOG).rules
    assert list(rules) == ["merge", "evaluate", "demo"]
    merge = rules["merge"]
    assert (merge.done, merge.running, merge.failed, merge.total) == (1, set(), {"2"}, 3)
    assert rules["evaluate"].running == {"3"}
    assert not read_log(LOG).ended


def test_a_job_tried_again_has_not_failed():
    again = read_log(LOG + "Trying to restart job 2.\n")
    assert again.rules["merge"].running == {"2"}
    done = read_log(LOG + "[Sun Nov 22 05:00:40 2026]\nFinished jobid: 2 (Rule: merge)\n")
    assert done.rules["merge"].seconds == [10, 40]
    assert not done.rules["merge"].failed


def test_time_left_is_by_the_mean_of_each_rule():
    # 10 s of work in 20 s: one at a time. One merge of 10 s, four evaluations and the target,
    # which are taken to be as long.
    log = LOG + "[Sun Nov 22 05:00:20 2026]\nx\n"
    assert read_log(log).seconds_left() == pytest.approx(10 + 4 * 10 + 10)
    assert read_log("").seconds_left() is None


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (None, "unknown"),
        (45, "45 s"),
        (720, "12 min"),
        (12_000, "3 h 20 min"),
        (190_000, "2 d 4 h"),
    ],
)
def test_durations_are_said_as_people_do(seconds, said):
    assert duration(seconds) == said


def test_a_finished_study_is_shown_without_a_terminal(finished):
    done = wildmerge("watch", cwd=finished.folder)
    assert "jobs done, 0 failed" in done.stdout


def test_without_a_run_it_says_so(tmp_path):
    done = wildmerge("watch", cwd=tmp_path, code=1)
    assert "none was found" in done.stderr


def test_jobs_of_a_group_fail_and_go_on_as_its_members():
    group = """\
[Sun Nov 22 05:01:00 2026] Group job b_n02-02_ties (jobs in lexicogr. order):

    [Sun Nov 22 05:01:00 2026]
    rule merge:
        output: results/merges/b/n02-02/ties/model
        jobid: 7
"""
    failed = """\
[Sun Nov 22 05:02:00 2026]
    message: Error in group b_n02-02_ties
    jobs:
        rule merge:
            jobid: 7
    [Sun Nov 22 05:02:00 2026]
    Error in rule merge:
        message: None
        jobid: 7
Trying to restart job 1688cbf9-49b0-5e8e-b8fc-7b3211c3ba30.
"""
    once = read_log(group + failed).rules["merge"]
    assert (once.failed, once.running) == ({"7"}, set())
    again = read_log(group + failed + group).rules["merge"]
    assert (again.failed, again.running) == (set(), {"7"})
