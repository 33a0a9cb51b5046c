"""Products of all task vectors of a base, tensor by tensor (Appendix D)."""

import numpy as np
from wildmerge.checkpoints import gram_matrices
from wildmerge.files import atomic_file
from wildmerge.run import job

if __name__ == "__main__":
    what = "similarity {base}".format(**snakemake.wildcards)
    with job(snakemake.log[0], what, snakemake.threads):
        experts = zip(snakemake.params.models, snakemake.input.experts, strict=True)
        arrays = gram_matrices(snakemake.input.base, dict(experts))
        with atomic_file(snakemake.output[0]) as part, open(part, "wb") as file:
            np.savez_compressed(file, **arrays)
