"""Products and sign counts of all task vectors of a base, tensor by tensor (Appendix D)."""

import numpy as np
from wildmerge.deltas import similarity
from wildmerge.files import atomic_file

if __name__ == "__main__":
    arrays = similarity(
        snakemake.input.base,
        dict(zip(snakemake.params.models, snakemake.input.experts, strict=True)),
    )
    with atomic_file(snakemake.output[0]) as part, open(part, "wb") as file:
        np.savez_compressed(file, **arrays)
