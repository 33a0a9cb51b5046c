"""Pass on the verdict of a checkpoint that can be merged; stop the merges of one that cannot."""

from wildmerge import WildmergeError
from wildmerge.files import read_json, write_json
from wildmerge.run import job
from wildmerge.study import ways_on


def admit(verdict: dict, reason: str) -> dict:
    """Return `verdict` if the checkpoint is compatible or the sheet admits it, else say why not.

    Args:
        verdict: what `task_vector` wrote.
        reason: the cell `admit` of the checkpoint's row, which is kept in the result where it was
            needed.

    Raises:
        WildmergeError: with everything that speaks against the checkpoint.
    """
    if verdict["compatible"]:
        return verdict
    name = f"{verdict['base']}/{verdict['model']} ({verdict['repo']})"
    if verdict["overridable"] and reason:
        print(f"{name} is admitted although {'; '.join(verdict['reasons'])}. Reason: {reason}")
        return verdict | {"admitted_because": reason}
    way_out = (
        "If you want it all the same, say why in the column `admit` of its row"
        if verdict["overridable"]
        else "No reason can change that: correct its row"
    )
    raise WildmergeError(
        f"A checkpoint that can be merged with {verdict['base']} was expected, but {name} cannot: "
        f"{'; '.join(verdict['reasons'])}. {way_out} in config/models.tsv. "
        + ways_on([f"{verdict['base']}/{verdict['model']}"])
    )


if __name__ == "__main__":
    with job(snakemake.log[0], "admit {base}/{model}".format(**snakemake.wildcards)):
        verdict = read_json(snakemake.input.verdict)
        write_json(snakemake.output.verdict, admit(verdict, snakemake.params.admit))
