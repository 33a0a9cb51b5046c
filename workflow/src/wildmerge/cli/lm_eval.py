"""Run lm-eval's own command line with the backend `shared-prefix` registered.

The backend computes each distinct prefix of a task's prompts once. All that follows is lm-eval's:
`wildmerge lm-eval run --help` lists it.
"""

import argparse
from collections.abc import Sequence

EXAMPLE = """\
  wildmerge lm-eval run --model shared-prefix --model_args pretrained=my-model --tasks piqa
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Whatever lm-eval takes."""
    parser.add_argument("words", metavar="...", nargs=argparse.REMAINDER, help="for lm-eval")


def run(arguments: argparse.Namespace) -> int:
    """Run lm-eval."""
    return hand_on(arguments.words)


def hand_on(words: Sequence[str]) -> int:
    """Run lm-eval on its own words."""
    from wildmerge.evaluation import lm_eval_command_line

    lm_eval_command_line(words)
    return 0
