"""Let a checkpoint through to the merges, or stop the study's merges that need it."""

from pathlib import Path

from wildmerge import WildmergeError
from wildmerge.files import atomic_file, read_json


def admit(verdict: dict, reason: str, marker: str | Path) -> None:
    """Write `marker` if the checkpoint is compatible or the sheet admits it, else say why not.

    verdict: what `task_vector` wrote. reason: the cell `admit` of the checkpoint's row. The
    marker holds the doubts that were set aside and the reason, or nothing.
    Raises WildmergeError with everything that speaks against the checkpoint.
    """
    text = ""
    if not verdict["compatible"]:
        name = f"{verdict['base']}/{verdict['model']} ({verdict['repo']})"
        if not (verdict["overridable"] and reason):
            way_out = (
                "If you want it all the same, say why in the column `admit` of its row"
                if verdict["overridable"]
                else "No override can mend that: correct its row"
            )
            raise WildmergeError(
                f"A checkpoint that can be merged with {verdict['base']} was expected, but {name} "
                f"cannot: {'; '.join(verdict['reasons'])}. {way_out} in config/models.tsv, or take "
                "it out of its pool."
            )
        text = f"{name} is admitted although {'; '.join(verdict['reasons'])}. Reason: {reason}\n"
    with atomic_file(marker) as part:
        part.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    admit(read_json(snakemake.input.verdict), snakemake.params.admit, snakemake.output[0])
