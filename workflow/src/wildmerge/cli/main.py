"""Read the command line and run one subcommand."""

import argparse
import os
import sys
from collections.abc import Sequence
from typing import Protocol

from wildmerge import WildmergeError, __version__
from wildmerge.cli import (
    compare,
    digest,
    evaluate,
    export,
    lm_eval,
    lock,
    merge,
    missing,
    new,
    plan,
    preflight,
    watch,
)


class _Command(Protocol):
    """A module of a subcommand; its docstring is the command's help."""

    __doc__: str | None
    EXAMPLE: str

    def add_arguments(self, parser: argparse.ArgumentParser) -> None: ...

    def run(self, arguments: argparse.Namespace) -> int: ...


# In the order of `wildmerge --help`.
COMMANDS: dict[str, _Command] = {
    "new": new,
    "lock": lock,
    "preflight": preflight,
    "plan": plan,
    "watch": watch,
    "missing": missing,
    "merge": merge,
    "evaluate": evaluate,
    "compare": compare,
    "export": export,
    "lm-eval": lm_eval,
    "digest": digest,
}


def parser() -> argparse.ArgumentParser:
    """The parser of the whole command line."""
    top = argparse.ArgumentParser(
        prog="wildmerge",
        description="Merge fine-tuned checkpoints, score them, compare them. The studies "
        "themselves run through snakemake.",
        epilog="example:\n  wildmerge compare a/small.items.parquet b/small.items.parquet",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="version", version=f"wildmerge {__version__}")
    commands = top.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name, command in COMMANDS.items():
        text = (command.__doc__ or "").strip()
        one = commands.add_parser(
            name,
            help=text.splitlines()[0],
            description=text,
            epilog=f"example:\n{command.EXAMPLE.rstrip()}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        command.add_arguments(one)
        one.set_defaults(run=command.run)
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line `argv` (that of the process unless given); returns the exit code.

    An error that a user can act on is printed as one paragraph on standard error.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    if words[:1] == ["lm-eval"] and words[1:2] not in ([], ["-h"], ["--help"]):
        return lm_eval.hand_on(words[1:])  # every word is lm-eval's own
    arguments = parser().parse_args(words)
    try:
        return arguments.run(arguments)
    except WildmergeError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # `wildmerge ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
