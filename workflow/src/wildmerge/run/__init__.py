"""What surrounds a job: log, GPU, scratch, shared store, cost, progress.

What other rooms use stands in `__init__.pyi`, and is imported when it is first used.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
