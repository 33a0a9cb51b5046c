"""Base and experts into a model by a recipe, tensor by tensor."""

from .precompute import (
    factorize_expert as factorize_expert,
    factorize_sum as factorize_sum,
    write_update as write_update,
)
from .recipe_yaml import (
    home_of_paths as home_of_paths,
    merge_by_yaml as merge_by_yaml,
    mergekit_yaml as mergekit_yaml,
    moved as moved,
)
from .shared import digests as digests, open_shared as open_shared
from .streaming import merge as merge
