"""wildmerge: what happens when fine-tuned checkpoints of one base are merged in the wild."""

__version__ = "0.1.0"


class WildmergeError(Exception):
    """An error that a user can act on.

    Its message is one paragraph: what was expected, what was found, where, and what to do.
    """
