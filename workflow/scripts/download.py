"""Fetch one checkpoint of models.tsv and make it an ordinary one of its base's shapes."""

from wildmerge.run import job, once
from wildmerge.sources import fetch_checkpoint, source_of

if __name__ == "__main__":
    params, output = snakemake.params, snakemake.output[0]
    base = snakemake.input.get("base") or None

    def download() -> None:
        """Fetch the checkpoint to the job's output."""
        fetch_checkpoint(
            params.repo,
            params.revision,
            output,
            base=base,
            pickles=params.get("pickles", False),
            files=params.get("files"),
        )

    with job(snakemake.log[0], "download {base}/{model}".format(**snakemake.wildcards), 1):
        # A local folder is not the same for everybody.
        store = snakemake.config.get("shared") if source_of(params.repo).shared else None
        names = ("repo", "revision", "files", "pickles", "base")
        key = {"rule": "download"} | {name: params.get(name) for name in names}
        # A third of the job's time, in seconds.
        wait = 20 * snakemake.resources.runtime
        rooms = ("sources", "checkpoints", "tensors")
        once(store, key, [output], download, rooms, patience=wait)
