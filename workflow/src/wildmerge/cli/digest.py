"""Print the digest of a folder's weights, as merge summaries, verdicts and scores name it.

It is taken over names, shapes, number formats and values of the tensors: the same weights in other
files have the same digest.
"""

import argparse
from pathlib import Path

from wildmerge import WildmergeError

EXAMPLE = """\
  wildmerge digest results/studies/mine/kept/my-base/n02-01/ties
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The folders."""
    parser.add_argument("folders", metavar="FOLDER", nargs="+", type=Path, help="a checkpoint")


def run(arguments: argparse.Namespace) -> int:
    """Print a line a folder."""
    from wildmerge.tensors import folder_digest

    for folder in arguments.folders:
        if not folder.is_dir():
            raise WildmergeError(
                f"A checkpoint folder was expected at {folder}, but there is none."
            )
        print(f"{folder_digest(folder)}  {folder}", flush=True)
    return 0
