"""Jobs on a Slurm that others share: refused, cancelled, never started, or left by a dead run.

Most functions here take one of Snakemake's or of its Slurm plugin's, and return what takes its
place; `patches` says where, for which versions, and why.
"""

import asyncio
import contextlib
import fcntl
import json
import os
import re
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

from wildmerge import WildmergeError
from wildmerge.words import NO_OTHER_TRY, duration

LONGEST_PAUSE = 60.0  # s between two tries of a refused submission
SAID_AGAIN = 600.0  # s until the same refusal is said again
PATIENCE = 24 * 3600.0  # s of refusals while none of the run's own jobs is in the queue
RUNS = Path(".snakemake/slurm-runs")  # a file for each run that has not ended
SILENCE = 600.0  # s without a sign of life from another machine, until a run there counts as dead
END = 300.0  # s that the jobs of a dead run may take to end

# What sbatch says where the same submission may be taken later.
_LATER = re.compile(
    r"job submit limit|unable to contact|timed out|temporarily|zero bytes|rate limit"
    r"|not connected|standby|connection (?:refused|reset|failure)|(?:send|receive) failure",
    re.IGNORECASE,
)
# What squeue gives as the reason of a job that waits for something which will not come.
_NEVER = re.compile(
    r"Partition(Time|Node)Limit|BadConstraints|MaxMemPerLimit|Invalid(Account|QOS)"
    r"|(Account|QOS)NotAllowed|DependencyNeverSatisfied|JobHoldMaxRequeue"
    r"|(Assoc|QOS)Max\w*PerJob(Limit)?|QOSMin\w*"
)
_FORGOTTEN = "forgotten"
# And of one that waits for a person, or for a budget.
_HELD = re.compile(r"JobHeld\w*|launch_failed_requeued_held|(Assoc|QOS)Grp\w*(Minutes|Billing)\w*")


def ask(*command: str) -> str | None:
    """What a command of Slurm's prints; None where it fails, as while the controller is away."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return None if done.returncode else done.stdout


def queue(run: str) -> list[str] | None:
    """Numbers of a run's jobs that wait, run or end; None where Slurm doesn't answer."""
    rows = ask("squeue", "--name", run, "--noheader", "--format=%i")
    return None if rows is None else rows.split()


# --- How a job has ended -------------------------------------------------------------------------


def one_word(query: Callable[..., Any]) -> Callable[..., Any]:
    """`query_job_status` that gives each state in one word, and says of no lost job that it waits.

    sacct says `CANCELLED by 0`, of which the plugin knows but the first word. A preempted job is
    queued again or, with PreemptMode=CANCEL, has ended: the queue knows which.
    """
    said: set[str] = set()

    async def query_job_status(command: str, logger: Any) -> tuple[dict[str, str] | None, Any]:
        states, seconds = await query(command, logger)
        states = states and {job: words.partition(" ")[0] for job, words in states.items()}
        preempted = [job for job, state in (states or {}).items() if state == "PREEMPTED"]
        if not preempted:
            return states, seconds
        rows = await asyncio.to_thread(
            ask, "squeue", "--me", "--noheader", "--states=all", "--format=%i|%T"
        )
        if rows is None:
            return states, seconds
        queued = dict(row.split("|") for row in rows.split())
        for job in preempted:
            if queued.get(job, "PREEMPTED") == "PREEMPTED":
                states[job] = "CANCELLED"
                if job not in said:
                    logger.warning(f"Job {job} of Slurm was preempted, and is not queued again.")
                said.add(job)
        return states, seconds

    return query_job_status


def with_message(_: Callable[..., None]) -> Callable[..., None]:
    """`GroupJob.log_error` that says what the executor says, of each of the jobs."""

    def log_error(
        group: Any, msg: str | None = None, aux_logs: list[str] | None = None, **kwargs: Any
    ) -> None:
        from snakemake.logging import logger
        from snakemake_interface_logger_plugins.common import LogEvent

        errors = [job.get_log_error_info(indent=True, **kwargs) for job in group.jobs]
        logger.error(
            f"Error in group {group.groupid}",
            extra={
                "event": LogEvent.GROUP_ERROR,
                "groupid": group.groupid,
                "aux_logs": aux_logs or [],
                "job_error_info": errors,
                **kwargs,
            },
        )
        for job in sorted(group.jobs, key=lambda job: job.rule.name):
            job.log_error(msg, indent=True)

    return log_error


# --- Which job is tried again --------------------------------------------------------------------

# Jobs that no other try would help.
_given_up: set[Any] = set()
# Log -> when a former try had written it, in ns, for the jobs that were submitted.
_written: dict[str, int] = {}


def _time(log: str) -> int:
    try:
        return os.stat(log).st_mtime_ns
    except OSError:
        return 0


def _hopeless(job: Any) -> bool:
    """Whether another try would end as this one: Slurm never starts it, or its own log says so."""
    jobs = list(job.jobs) if job.is_group() else [job]
    logs = [str(log) for one in jobs for log in one.log]
    return job in _given_up or any(
        (written := _time(log)) and written != _written.get(log, 0) and says_no_other_try(log)
        for log in logs
    )


def says_no_other_try(log: str) -> bool:
    """Whether a job's log ends so that trying again would be in vain."""
    with open(log, "rb") as file:
        file.seek(max(0, os.path.getsize(log) - 4000))
        return NO_OTHER_TRY in file.read().decode("utf-8", errors="replace")


def unless_hopeless(restart_times: property) -> property:
    """`restart_times` that is 0 for jobs that no other try would help."""
    return property(lambda job: 0 if _hopeless(job) else restart_times.__get__(job))


# --- Submission ----------------------------------------------------------------------------------

_submission = threading.local()
_one_at_a_time = threading.Lock()


def capped(get_submit_command: Callable[..., str]) -> Callable[..., str]:
    """`get_submit_command` that asks for no more than a site's `max_runtime` and `max_mem_mb`.

    Attempts, and groups, ask for more than the rules: the limit is that of what is submitted.
    """

    def command(job: Any, *arguments: Any, **settings: Any) -> str:
        call = get_submit_command(job, *arguments, **settings)
        jobs = list(job.jobs) if job.is_group() else [job]
        for option, name in (("-t", "max_runtime"), ("--mem", "max_mem_mb")):
            limits = [limit for one in jobs if (limit := one.resources.get(name))]
            before, given, after = call.partition(f" {option} ")
            asked, _, rest = after.partition(" ")
            if limits and asked.isdigit():
                call = f"{before}{given}{min(int(asked), *limits)} {rest}"
        return call

    return command


def may_pass(words: str) -> bool:
    """Whether a submission that was refused with these words of sbatch's may be taken later."""
    limits = re.findall(r"error: ((?:Assoc|QOS)\w+)", words)
    if limits:
        return any("Submit" in limit for limit in limits)
    return bool(_LATER.search(words))


def noting_refusals(report: Callable[..., None]) -> Callable[..., None]:
    """`_report_job_error_threadsafe` that notes a refused submission, for `patient` to decide."""

    def report_refusal(executor: Any, job_info: Any, msg: str) -> None:
        if getattr(_submission, "noting", False):
            said = re.search(r"error message was '(.*?)'\.\n", msg, re.DOTALL)
            _submission.refusal = said[1].strip() if said else msg
        else:
            report(executor, job_info, msg)

    return report_refusal


def patient(run_job: Callable[..., None]) -> Callable[..., None]:
    """`run_job` that submits again, after growing pauses, what Slurm may take later."""

    def submit(executor: Any, job: Any) -> None:
        jobs = list(job.jobs) if job.is_group() else [job]
        if job.is_group():  # for those who read the log, see run.progress
            held = ", ".join(str(one.jobid) for one in jobs)
            executor.logger.info(f"Group {job.jobid} holds jobs {held}.")
        logs = [log for one in jobs for log in one.log]
        _written.update({str(log): _time(str(log)) for log in logs})
        pause, since, words = 2.0, time.monotonic(), None
        while not _stopping(executor).is_set():
            with _one_at_a_time:
                if words is None or "Submit" in words or _without_twin(executor):
                    words = _refusal(run_job, executor, job)
            if words is None:
                return
            in_vain = time.monotonic() - since > PATIENCE and queue(executor.run_uuid) == []
            if in_vain or not may_pass(words):
                _refuse(executor, job, words)
                return
            _say(executor, words)
            _wait(executor, pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    return submit


def _refusal(run_job: Callable[..., None], executor: Any, job: Any) -> str | None:
    """Submit a job; what Slurm says where it refuses it."""
    _submission.noting, _submission.refusal = True, None
    try:
        run_job(executor, job)
    except Exception as error:  # of a group the plugin does not report its own
        return str(error.__context__ or error)
    finally:
        _submission.noting = False
    refusal: str | None = _submission.refusal
    return refusal


def _without_twin(executor: Any) -> bool:
    """Whether a submission can be repeated: a controller that did not answer may have taken it.

    Then its job, whose number nobody was told, is cancelled.
    """
    known = vars(executor).setdefault("_wildmerge_known", set())
    queued = queue(executor.run_uuid)
    twins = set(queued or ()) - known
    if twins:
        ask("scancel", *twins)
    return queued is not None


def knowing(report: Callable[..., None]) -> Callable[..., None]:
    """`_report_job_submission_threadsafe` that keeps the numbers of Slurm's for `patient`."""

    def report_submission(executor: Any, job_info: Any) -> None:
        vars(executor).setdefault("_wildmerge_known", set()).add(job_info.external_jobid)
        report(executor, job_info)

    return report_submission


def _refuse(executor: Any, job: Any, words: str) -> None:
    from snakemake_interface_executor_plugins.executors.base import SubmittedJobInfo

    _given_up.add(job)
    executor._report_job_error_threadsafe(
        SubmittedJobInfo(job),
        f"Slurm refuses this job: {_one_line(words)}. Another try would be refused too: change "
        "what the profile asks for, or ask the site's administrators. ",
    )


def _one_line(words: str) -> str:
    return "; ".join(re.sub(r"^sbatch: (error: )?", "", line) for line in words.splitlines())


def _say(executor: Any, words: str) -> None:
    """Say why submissions wait, once for each reason in ten minutes."""
    said = vars(executor).setdefault("_wildmerge_said", {})
    if time.monotonic() - said.get(words, -SAID_AGAIN) >= SAID_AGAIN:
        said[words] = time.monotonic()
        executor.logger.warning(
            f"Slurm takes no more jobs for now: {_one_line(words)}. Submissions wait and are tried "
            "again; this uses up none of a job's attempts."
        )


def _stopping(executor: Any) -> threading.Event:
    """Set when nothing more may be submitted."""
    event: threading.Event = vars(executor).setdefault("_wildmerge_stopping", threading.Event())
    return event


def _wait(executor: Any, seconds: float) -> None:
    """Sleep, unless the run ends."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and not _stopping(executor).wait(0.5):
        if not threading.main_thread().is_alive():
            _stopping(executor).set()


def cancelling_all(cancel_jobs: Callable[..., None]) -> Callable[..., None]:
    """`cancel_jobs` that submits nothing more, and cancels what was submitted meanwhile."""

    def cancel(executor: Any, active_jobs: list[Any]) -> None:
        _stopping(executor).set()
        executor._job_submission_executor.shutdown(wait=True, cancel_futures=True)
        try:
            cancel_jobs(executor, active_jobs)
        finally:
            ask("scancel", "--name", executor.run_uuid)

    return cancel


# --- Jobs that wait for ever ---------------------------------------------------------------------


def noticing(check_active_jobs: Callable[..., Any]) -> Callable[..., Any]:
    """`check_active_jobs` that ends a job that Slurm will never start, or knows no more."""

    async def check(executor: Any, active_jobs: list[Any]) -> AsyncIterator[Any]:
        active = [job async for job in check_active_jobs(executor, active_jobs)]
        listed = await asyncio.to_thread(_listed, executor.run_uuid) if active else None
        seen = vars(executor).setdefault("_wildmerge_seen", {})
        # With accounts, what the queue has forgotten is asked of them.
        forgotten = _FORGOTTEN if executor.get_status_command() == "squeue" else ""
        soon = False
        for job in active:
            reason, asked = "", ""
            if listed is not None:
                reason, asked = listed.get(job.external_jobid, (forgotten, ""))
            # Three times: a controller that has just started may not know all its nodes.
            before, times = seen.get(job.external_jobid, ("", 0))
            times = times + 1 if reason == before else 1
            seen[job.external_jobid] = reason, times
            soon |= reason == _FORGOTTEN or bool(_NEVER.fullmatch(reason))
            if times >= 3 and _NEVER.fullmatch(reason):
                _end(executor, job, reason, asked)
            elif times >= 3 and reason == _FORGOTTEN:
                executor.report_job_error(
                    job,
                    msg=f"Slurm has forgotten its job {job.external_jobid}: this run did not look "
                    "within MinJobAge of its end, and no accounts are kept. ",
                )
            else:
                if times == 1 and _HELD.fullmatch(reason):
                    executor.logger.warning(
                        f"Job {job.external_jobid} of Slurm waits for a person or a budget: "
                        f"{reason}. `scontrol show job {job.external_jobid}` tells more."
                    )
                yield job
        if soon:  # else later and later
            settings = executor.workflow.executor_settings
            executor.next_seconds_between_status_checks = settings.init_seconds_before_status_checks

    return check


def _listed(run: str) -> dict[str, tuple[str, str]] | None:
    """Job of Slurm's -> why it waits, and what it asks for in words; None without an answer."""
    rows = ask(
        *("squeue", "--name", run, "--noheader", "--states=all"),
        "--format=%i|%r|%l (days-hours:minutes) and %m in partition %P",
    )
    if rows is None:
        return None
    parts = [row.split("|", 2) for row in rows.splitlines()]
    return {job: (reason, asked) for job, reason, asked in parts}


def _end(executor: Any, job: Any, reason: str, asked: str) -> None:
    ask("scancel", job.external_jobid)
    _given_up.add(job.job)
    executor.report_job_error(
        job,
        msg=f"Slurm will never start its job {job.external_jobid}: {reason}. It asks for {asked}; "
        "it was cancelled, and another try would wait as long. Choose another partition, or set "
        "max_runtime (minutes) or max_mem_mb among the profile's default-resources, which no "
        "attempt exceeds. ",
    )


# --- Runs that were killed -----------------------------------------------------------------------


def signing_on(post_init: Callable[..., None]) -> Callable[..., None]:
    """`Executor.__post_init__` that leaves a locked file: to a later run, a sign that it lives."""

    def start(executor: Any, *arguments: Any, **settings: Any) -> None:
        post_init(executor, *arguments, **settings)
        RUNS.mkdir(parents=True, exist_ok=True)
        file = (RUNS / executor.run_uuid).open("w")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            executor.logger.warning(
                f"A file system with locks was expected at {RUNS.resolve()}, but {error}. Should "
                f"this run be killed, cancel its jobs yourself: scancel --name {executor.run_uuid}"
            )
            file.close()
            (RUNS / executor.run_uuid).unlink()
            return
        json.dump({"host": socket.gethostname(), "pid": os.getpid()}, file)
        file.flush()
        executor._wildmerge_run = file
        threading.Thread(target=_give_signs_of_life, args=(executor,), daemon=True).start()

    return start


def _give_signs_of_life(executor: Any) -> None:
    while not _stopping(executor).wait(SILENCE / 10):
        with contextlib.suppress(OSError):
            os.utime(executor._wildmerge_run.name)


def signing_off(shutdown: Callable[..., None]) -> Callable[..., None]:
    """`Executor.shutdown` that removes the file of `signing_on`, unless jobs are still ending."""

    def end(executor: Any) -> None:
        _stopping(executor).set()
        shutdown(executor)
        if run := getattr(executor, "_wildmerge_run", None):
            if queue(executor.run_uuid) == []:
                Path(run.name).unlink(missing_ok=True)
            run.close()

    return end


def dead_runs() -> Iterator[str]:
    """The runs of this folder that ended without cancelling their jobs, by the name of those.

    Raises:
        WildmergeError: whether a run on another machine lives can't be said yet.
    """
    for path in sorted(RUNS.glob("*")):
        with path.open() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                continue  # it lives
            text = file.read()
            host = json.loads(text)["host"] if text else socket.gethostname()
            (here := RUNS.with_suffix(".now")).touch()
            silent = here.stat().st_mtime - path.stat().st_mtime
        # Not every network file system carries locks from one machine to another.
        if host != socket.gethostname() and silent < SILENCE:
            raise WildmergeError(
                f"A run of this folder was expected to have ended, but one on {host} was seen "
                f"{duration(silent)} ago. If it lives, leave it alone; if it was killed, type the "
                f"same again in {duration(SILENCE - silent)}."
            )
        yield path.name


def end_dead_runs(tell: Callable[[str], None]) -> None:
    """Cancel what dead runs left in Slurm's queue, wait until it is gone, and keep what it made.

    Outputs stand under their final names only when they are whole (`files.atomic_file`), so
    Snakemake's marks of unfinished ones are taken off those of Slurm's jobs. Its lock is taken off
    too, unless another run of this folder is alive.

    Args:
        tell: is told what is done, in a sentence.

    Raises:
        WildmergeError: Slurm doesn't answer, or the jobs don't end.
    """
    last = 0.0
    for run in list(dead_runs()):
        end = time.monotonic() + END
        if left := queue(run):
            tell(f"An earlier run was killed; its {len(left)} jobs in Slurm's queue are cancelled.")
            ask("scancel", "--name", run)
        while (left := queue(run)) and time.monotonic() < end:
            time.sleep(1)
        if left or left is None:
            raise WildmergeError(
                f"The jobs of a killed run were expected to end within {duration(END)}, but Slurm "
                f"{'does not answer' if left is None else 'still has ' + ', '.join(left)}. Type "
                "the same again later."
            )
        last = max(last, (RUNS / run).stat().st_mtime)
        (RUNS / run).unlink()
    if not last or any(RUNS.glob("*")):
        return
    for mark in Path(".snakemake/incomplete").rglob("*"):
        if mark.is_file() and '"external_jobid": "' in mark.read_text():
            mark.unlink()
    for lock in Path(".snakemake/locks").glob("*.lock"):
        if lock.stat().st_mtime <= last:  # a younger one is of somebody else
            lock.unlink()


def after_dead_runs(prepare_dag: Callable[..., None]) -> Callable[..., None]:
    """`Workflow._prepare_dag` that first ends what a killed run left, and takes off its lock."""

    def prepare(workflow: Any, *arguments: Any, **settings: Any) -> None:
        runs = workflow.executor_plugin is not None and not workflow.dryrun
        if runs and workflow.is_main_process and shutil.which("squeue"):
            _end_dead_runs()
        prepare_dag(workflow, *arguments, **settings)

    return prepare


def _end_dead_runs() -> None:
    from snakemake.exceptions import WorkflowError
    from snakemake.logging import logger

    try:
        end_dead_runs(logger.warning)
    except WildmergeError as error:
        raise WorkflowError(str(error)) from error
