"""Check a study's checkpoints from their headers, before anything is downloaded.

It prints which of them can be merged with their bases and which need what, and asks the hub for a
few kilobytes of each.
"""

import argparse
import subprocess

from wildmerge.cli.workflow import command

EXAMPLE = """\
  wildmerge preflight wild
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The study."""
    parser.add_argument("study", metavar="STUDY", help="a file of config/studies/, without .yaml")


def run(arguments: argparse.Namespace) -> int:
    """Run the rule `preflight`, whether it has run before or not."""
    target = f"results/studies/{arguments.study}/preflight.json"
    return subprocess.call(command("--cores", "1", "--force", target))
