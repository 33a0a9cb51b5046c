"""How far a run is, read from Snakemake's own logs."""

import os

import pytest
from project import wildmerge
from wildmerge import WildmergeError
from wildmerge.run import job
from wildmerge.run.progress import failures, read_log, slurm_states, summary, waiting
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


UUID = "1688cbf9-49b0-5e8e-b8fc-7b3211c3ba30"
ON_SLURM = f"""\
SLURM run ID: 77-a
[Sun Nov 22 05:01:00 2026] Group job b_n02-02_ties (jobs in lexicogr. order):

    [Sun Nov 22 05:01:00 2026]
    rule evaluate:
        log: logs/evaluate/b/n02-02/ties/paper.log
        jobid: 6
    [Sun Nov 22 05:01:00 2026]
    rule merge:
        log: logs/merge/b/n02-02/ties.log
        jobid: 7
Group {UUID} holds jobs 6, 7.
Job {UUID} has been submitted with SLURM jobid 12 (log: logs/slurm/12.log).
[Sun Nov 22 05:01:00 2026]
localrule admit:
    jobid: 8
[Sun Nov 22 05:01:01 2026]
rule merge:
    jobid: 9
"""
ENDED = """\
[Sun Nov 22 05:02:00 2026]
    message: Error in group b_n02-02_ties
    log: logs/slurm/12.log (check log file(s) for error details)
    jobs:
        rule evaluate:
            jobid: 6
            log: logs/evaluate/b/n02-02/ties/paper.log (check log file(s) for error details)
        rule merge:
            jobid: 7
    [Sun Nov 22 05:02:00 2026]
    Error in rule evaluate:
        message: SLURM-job '12' failed, SLURM status is: 'TIMEOUT'.
        jobid: 6
        log: logs/evaluate/b/n02-02/ties/paper.log (check log file(s) for error details)
    [Sun Nov 22 05:02:00 2026]
    Error in rule merge:
        message: SLURM-job '12' failed, SLURM status is: 'TIMEOUT'.
        jobid: 7
        log: logs/merge/b/n02-02/ties.log (check log file(s) for error details)
"""


def test_jobs_that_wait_in_the_queue_are_counted_apart():
    run = read_log(ON_SLURM)
    states = slurm_states("12 PENDING\n")
    assert run.slurm == "77-a"
    # Job 9 was not taken yet; the local job 8 waits for nobody.
    assert waiting(run, run.rules["merge"], states) == 2
    assert waiting(run, run.rules["merge"], slurm_states("12 RUNNING\n")) == 1
    assert waiting(run, run.rules["admit"], states) == 0


def test_a_group_that_is_tried_again_has_not_failed():
    run = read_log(ON_SLURM + ENDED + f"Trying to restart job {UUID}.\n")
    assert run.rules["merge"].failed == set() == run.rules["evaluate"].failed
    assert run.rules["merge"].again == {"7"}
    # It has left Slurm's queue, and waits to be taken again.
    assert waiting(run, run.rules["evaluate"], {}) == 1
    assert failures(run) == []


def log_of(path: str, error: Exception | None) -> None:
    """What a job leaves that ends with this error, or was killed in its work."""
    if error is None:
        os.makedirs(os.path.dirname(path))
        with open(path, "w") as log:
            print("Reading weights", file=log)
        return
    with pytest.raises(SystemExit), job(path, "merge b/n02-02/ties"):
        print("Reading weights")
        raise error


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (WildmergeError("Weights were expected, found NaN."), "Weights were expected, found NaN."),
        (ValueError("no such axis"), "ValueError: no such axis"),
        (None, "SLURM-job '12' failed, SLURM status is: 'TIMEOUT'."),
    ],
)
def test_a_failure_is_named_once_with_its_reason_and_log(tmp_path, monkeypatch, error, said):
    monkeypatch.chdir(tmp_path)
    log_of("logs/merge/b/n02-02/ties.log", error)
    snakemake = tmp_path / "snakemake.log"
    snakemake.write_text(ON_SLURM + ENDED)
    told = summary([str(snakemake)])
    assert f"\nmerge b/n02-02/ties: {said}\n  Log: logs/merge/b/n02-02/ties.log\n" in told
    assert told.startswith("One job failed;") and "evaluate" not in told


def test_only_an_error_that_stays_forbids_another_try(tmp_path):
    from wildmerge.slurm import says_no_other_try
    from wildmerge.sources._hub_client import Transient

    errors = {
        WildmergeError("Weights were expected."): True,
        OSError(28, "No space left on device"): True,
        RuntimeError("Error while serializing: No space left on device (os error 28)"): True,
        Transient("The hub is away."): False,
        MemoryError(): False,
        ValueError("x"): False,
    }
    for number, (error, stays) in enumerate(errors.items()):
        log_of(log := str(tmp_path / f"{number}.log"), error)
        assert says_no_other_try(log) == stays, error
