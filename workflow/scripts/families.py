"""Say what the verdicts of a study's checkpoints show together: ancestry, duplicates, doubts."""

import csv

from wildmerge import WildmergeError
from wildmerge.checkpoints import families
from wildmerge.files import atomic_file, read_json
from wildmerge.run import job
from wildmerge.study import ways_on


def main(
    verdicts: list[str], admitted: dict[str, str], output: str, refuse_copies: bool = False
) -> None:
    """Write checkpoints.csv.

    Args:
        verdicts: paths of the study's verdicts.
        admitted: "base/model" -> the sheet's reason.
        output: path of the table.
        refuse_copies: whether two names for the same weights stop the study.

    Raises:
        WildmergeError: after the writing, if a checkpoint may not be used.
    """
    reasons = {}
    for name, reason in admitted.items():
        base, model = name.split("/")
        reasons[base, model] = reason
    rows = families([read_json(path) for path in verdicts], reasons, refuse_copies=refuse_copies)
    with atomic_file(output) as part, open(part, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    for row in rows:
        if row["found"]:
            said = f" Admitted: {row['admitted']}" if row["usable"] and row["admitted"] else ""
            print(f"{row['base']}/{row['model']} ({row['repo']}): {row['found']}.{said}")
    if bad := [f"{row['base']}/{row['model']}" for row in rows if not row["usable"]]:
        raise WildmergeError(
            f"Checkpoints that belong to their family were expected, but {len(bad)} of {len(rows)} "
            f"are in doubt: {', '.join(bad)} (why of each: above). Say why they stay in "
            "the column `admit` of their rows in config/models.tsv, or go on without them. "
            + ways_on(bad)
        )


if __name__ == "__main__":
    with job(snakemake.log[0], "families {study}".format(**snakemake.wildcards)):
        params = snakemake.params
        main(snakemake.input.verdicts, params.admitted, snakemake.output[0], params.refuse_copies)
