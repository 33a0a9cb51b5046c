"""Weights on disk and the arithmetic on them: headers, chunks, digests, factorisations."""

from . import spectral as spectral
from .chunks import (
    delta as delta,
    deltas as deltas,
    flat as flat,
    in_parallel as in_parallel,
    slices as slices,
)
from .digest import (
    Digest as Digest,
    folder_digest as folder_digest,
    known_digest as known_digest,
    remember as remember,
    told_digest as told_digest,
    unchanged as unchanged,
    weights_digest as weights_digest,
)
from .headers import (
    INDEX as INDEX,
    SINGLE as SINGLE,
    parse_header as parse_header,
    read_header as read_header,
)
from .spectral import SpectralWarning as SpectralWarning
from .weights import (
    DTYPE_NAMES as DTYPE_NAMES,
    DTYPES as DTYPES,
    Weights as Weights,
    lazy_tensor as lazy_tensor,
)
from .writer import Writer as Writer
