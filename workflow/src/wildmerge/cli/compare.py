"""Compare two evaluated models, question by question, or make a study's numbers again.

Of two files of outcomes it prints, for each task and for the mean over tasks, the difference, its
95 % interval over questions and a p-value (paired test; those of tasks corrected by Holm). Of a
study's outcomes.parquet it writes comparisons, intervals, answers, methods and best as CSV files.
"""

import argparse
from pathlib import Path

from wildmerge import WildmergeError

EXAMPLE = """\
  wildmerge compare results/scores/my-base/n02-01/ties/paper.items.parquet \\
      results/scores/my-base/base/identity/paper.items.parquet
  wildmerge compare results/studies/mine/outcomes.parquet --out again
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Two files of outcomes, or one of a study."""
    parser.add_argument("a", metavar="A.items.parquet", help="every question's outcome, one model")
    parser.add_argument(
        "b", metavar="B.items.parquet", nargs="?", help="the same of another, on one suite"
    )
    parser.add_argument("--out", metavar="FOLDER", help="where a study's CSV files are written")


def run(arguments: argparse.Namespace) -> int:
    """Print the comparison, or write the files."""
    from wildmerge.analysis import compare_study, read_study, report_two
    from wildmerge.files import atomic_file

    if arguments.b:
        print(report_two(Path(arguments.a), Path(arguments.b)))
        return 0
    if not arguments.out:
        raise WildmergeError(
            f"A second file of outcomes to compare {arguments.a} with was expected, or, for a "
            "study's outcomes.parquet, --out FOLDER; found neither. Add one of them."
        )
    folder = Path(arguments.out)
    folder.mkdir(parents=True, exist_ok=True)
    for name, frame in compare_study(read_study(arguments.a)).items():
        with atomic_file(folder / f"{name}.csv") as part:
            frame.to_csv(part, index=False)
        print(folder / f"{name}.csv")
    return 0
