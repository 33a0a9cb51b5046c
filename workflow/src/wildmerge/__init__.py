"""wildmerge: what happens when fine-tuned checkpoints of one base are merged in the wild."""

import os

# Weights are gigabytes of fresh memory: in huge pages the kernel hands it out in a fraction of the
# time. torch looks at this when it first allocates.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")

__version__ = "0.1.0"


class WildmergeError(Exception):
    """An error that a user can act on.

    Its message is one paragraph: what was expected, what was found, where, and what to do.
    """
