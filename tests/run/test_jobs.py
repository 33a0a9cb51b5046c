"""What a job sets up before its work."""

import subprocess
import sys

from project import Project


def told(code: str) -> str:
    """What a fresh process prints."""
    env = {key: value for key, value in Project.env().items() if key != "THP_MEM_ALLOC_ENABLE"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env
    )
    return done.stdout.strip()


def test_a_job_takes_memory_in_huge_pages_and_an_import_does_not(tmp_path):
    ask = "print(os.environ.get('THP_MEM_ALLOC_ENABLE'))"
    assert told(f"import os, wildmerge.run.jobs, wildmerge.merging.streaming; {ask}") == "None"
    job = f"with wildmerge.run.jobs.job({str(tmp_path / 'log')!r}, 'a job'): pass"
    assert told(f"import os, wildmerge.run.jobs\n{job}\n{ask}") == "1"
    # What the user has decided stays.
    decided = "os.environ['THP_MEM_ALLOC_ENABLE'] = '0'"
    assert told(f"import os, wildmerge.run.jobs; {decided}\n{job}\n{ask}") == "0"
