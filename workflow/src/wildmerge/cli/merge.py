"""Merge by a mergekit YAML, with this project's methods registered.

A study leaves such a file beside every merge, which repeats it without Snakemake, called from
anywhere: paths in it lead from its own folder, or else from here. What stands after
OUT are mergekit's own options (`mergekit-yaml --help` lists them).
"""

import argparse
import os
from pathlib import Path

from wildmerge import WildmergeError

EXAMPLE = """\
  wildmerge merge results/merges/my-base/n02-01/iso_c/mergekit.yaml merged --lazy-unpickle
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The file, the folder, and whatever mergekit takes."""
    parser.add_argument("config", metavar="mergekit.yaml", help="what to merge, and how")
    parser.add_argument("out", metavar="OUT", help="folder for the merged checkpoint")
    parser.add_argument("options", metavar="...", nargs=argparse.REMAINDER, help="for mergekit")


def run(arguments: argparse.Namespace) -> int:
    """Let mergekit merge."""
    if not Path(arguments.config).is_file():
        raise WildmergeError(
            f"A mergekit YAML was expected at {arguments.config}, but there is no such file. A "
            "study writes one beside every merge: results/merges/.../mergekit.yaml."
        )
    from wildmerge import use_huge_pages
    from wildmerge.merging import home_of_paths, merge_by_yaml

    use_huge_pages()
    config, out = Path(arguments.config).absolute(), Path(arguments.out).absolute()
    os.chdir(home_of_paths(config))
    merge_by_yaml([str(config), str(out), *arguments.options])
    return 0
