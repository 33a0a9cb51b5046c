"""The merge methods: tensors in, tensor out, one file a method.

Every method forms an update of the base, W_merged = W_0 + update, from the base's tensor and the
experts' tensors of the same name. A method's file declares all that the project needs to know of it
(`Method`); a new file here is a new method. Nothing here imports torch before it computes, since
what builds the DAG reads the declarations.
"""

import pkgutil
import re
from collections.abc import Sequence
from importlib import import_module

from wildmerge import WildmergeError

from ._method import Identity, Look, Method, Parameter, arguments
from ._recipes import MERGEKIT, check, check_parameters, schema

__all__ = [
    "MERGEKIT",
    "METHODS",
    "Identity",
    "Look",
    "Method",
    "Parameter",
    "arguments",
    "check",
    "check_parameters",
    "is_projection",
    "schema",
]

# Token embeddings and output heads have a row a token, and routers a row an expert of a mixture: no
# singular vector of them is a direction between two spaces of the network. Their names in the usual
# architectures: `shared` is T5's embedding, `output` and `tok_embeddings` are Llama's own names.
_NO_PROJECTION = re.compile(
    r"(^|\.)(\w*embed\w*|lm_head|wte|wpe|router|gate|shared_expert_gate)\.weight$"
    r"|^(model\.)?(output|shared)\.weight$|\.router\.\w+\.weight$"
)


def is_projection(name: str, shape: Sequence[int]) -> bool:
    """Whether a tensor is a 2-D weight of an attention or MLP block, where subspace methods act.

    Embeddings, heads and the routers of mixtures of experts are none.
    """
    return len(shape) == 2 and not _NO_PROJECTION.search(name)


def _declared() -> dict[str, Method]:
    """Every method that a module of this package declares, in the order of figures and tables."""
    methods: dict[str, Method] = {}
    for module in pkgutil.iter_modules(__path__):
        if module.name.startswith("_"):
            continue
        values = vars(import_module(f"{__name__}.{module.name}")).values()
        for method in (value for value in values if isinstance(value, Method)):
            if methods.setdefault(method.name, method) is not method:
                raise WildmergeError(
                    f"A name of its own was expected for each merge method, but {module.name}.py "
                    f"declares {method.name}, which another file has already. Rename one of them."
                )
    return dict(sorted(methods.items(), key=lambda item: (item[1].place, item[0])))


METHODS = _declared()
