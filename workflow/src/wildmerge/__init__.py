"""wildmerge: what happens when fine-tuned checkpoints of one base are merged in the wild."""

import os

__version__ = "0.1.0"


class WildmergeError(Exception):
    """An error that a user can act on.

    Its message is one paragraph: what was expected, what was found, where, and what to do.

    Attributes:
        may_pass: whether the same may go well at another time, such as a download.
    """

    may_pass = False


def use_huge_pages() -> None:
    """Let torch take memory in huge pages in this process, unless the user has decided on it.

    Weights are gigabytes of fresh memory, which the kernel hands out in huge pages in a fraction
    of the time. torch looks at this variable when it first allocates as much as that: call it
    before any weights are read.
    """
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
