"""What every job does around its work: a log, a readable message, its share of cores and GPUs."""

import errno
import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO, cast

from wildmerge import WildmergeError, use_huge_pages
from wildmerge.words import NO_OTHER_TRY

from .devices import VISIBLE, device, require_seen


class _Tee:
    """A stream that writes to a log and, while the job runs, to the terminal or Slurm's log."""

    def __init__(self, *streams: TextIO) -> None:
        self.streams = streams

    def write(self, text: str) -> int:
        for stream in self.streams:
            stream.write(text)
        return len(text)

    def flush(self) -> None:
        for stream in self.streams:
            stream.flush()

    def isatty(self) -> bool:
        return False


@contextmanager
def job(
    log: str, what: str, threads: int | None = None, gpus: int = 0, portable: bool = False
) -> Iterator[None]:
    """Run a script's work: keep what it prints in `log`, end in one paragraph on a known error.

    A WildmergeError is shown as one paragraph and ends the process with code 1; anything else keeps
    its traceback, in the log and on standard error. Where another try would end the same way, the
    log says so, and none is made (see `slurm.unless_hopeless`).

    Args:
        log: path of the job's log, whose folder is made.
        what: the job in words, such as "merge smollm2-135m/n02-01/ties": the message begins so.
        threads: CPU threads for torch, where the job uses it.
        gpus: how many GPUs the job asks for. It holds one for itself where there are any; without,
            CUDA shows it none.
        portable: compute the same bits on every x86-64 processor, which is slower: MKL's code path
            for all makers, torch's own loops in AVX2. One thread, and no bfloat16 products, which
            oneDNN computes by what the processor has.
    """
    use_huge_pages()
    if portable:  # both are read when torch first computes
        os.environ |= {"MKL_CBWR": "COMPATIBLE", "ATEN_CPU_CAPABILITY": "avx2"}
    Path(log).parent.mkdir(parents=True, exist_ok=True)
    with open(log, "w", encoding="utf-8") as file:
        streams = sys.stdout, sys.stderr
        sys.stdout = sys.stderr = cast(TextIO, _Tee(file, streams[1]))
        try:
            if threads:
                import torch

                torch.set_num_threads(threads)
            with device(gpus) as held:
                if held and os.environ.get("WILDMERGE_DEVICE") == "cpu":
                    os.environ[VISIBLE] = ""
                elif held:
                    require_seen(held)
                yield
        except WildmergeError as error:
            hopeless = "" if error.may_pass else f"\n{NO_OTHER_TRY}"
            print(f"\n{what}: {error}{hopeless}\nLog: {os.path.abspath(log)}", flush=True)
            sys.exit(1)
        except Exception as error:
            traceback.print_exc()
            hopeless = f" {NO_OTHER_TRY}" if _disk_is_full(error) else ""
            print(f"\n{what} failed.{hopeless} Log: {os.path.abspath(log)}", flush=True)
            sys.exit(1)
        finally:
            sys.stdout, sys.stderr = streams


def _disk_is_full(error: BaseException) -> bool:
    """Whether an error says that there is no room; libraries in Rust and C++ use words only."""
    full = (errno.ENOSPC, errno.EDQUOT)
    return getattr(error, "errno", None) in full or any(
        os.strerror(number) in str(error) for number in full
    )
