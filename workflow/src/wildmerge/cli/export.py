"""Write scores and samples in lm-eval's own results format.

Tools that read the output of `lm_eval run --log_samples` read these, too. lm-eval counts them once
more, from the kept log-likelihoods; no model is loaded.
"""

import argparse
from pathlib import Path

EXAMPLE = """\
  wildmerge export results/scores/my-base/n02-01/ties/small.json \\
      --questions resources/suites/small --out lm-eval/ties
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The scores, their questions, and where to."""
    parser.add_argument("scores", metavar="SCORES.json", type=Path, help="of one model and suite")
    parser.add_argument("--questions", required=True, type=Path, help="folder of the suite")
    parser.add_argument("--out", required=True, type=Path, help="folder for lm-eval's files")


def run(arguments: argparse.Namespace) -> int:
    """Export, and say where to."""
    from wildmerge.evaluation import offline

    offline()
    from wildmerge.evaluation import export

    export(arguments.scores, arguments.questions, arguments.out)
    print(arguments.out)
    return 0
