"""Compare two evaluated models, question by question.

For each task and for the mean over tasks it prints the difference, its 95 % interval over
questions (paired bootstrap) and a p-value (paired test; those of tasks corrected by Holm).
"""

import argparse
from pathlib import Path

EXAMPLE = """\
  wildmerge compare results/scores/my-base/n02-01/ties/paper.items.parquet \\
      results/scores/my-base/base/identity/paper.items.parquet
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Two files of outcomes."""
    parser.add_argument("a", metavar="A.items.parquet", help="every question's outcome, one model")
    parser.add_argument("b", metavar="B.items.parquet", help="the same of another, on one suite")


def run(arguments: argparse.Namespace) -> int:
    """Print the comparison."""
    from wildmerge.analysis import report_two

    print(report_two(Path(arguments.a), Path(arguments.b)))
    return 0
