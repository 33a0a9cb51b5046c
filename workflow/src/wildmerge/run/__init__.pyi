"""What surrounds a job: log, GPU, shared store, cost, progress."""

from . import cost as cost
from .cost import spent as spent
from .devices import device as device
from .jobs import job as job
from .progress import Progress as Progress, read_log as read_log
from .store import content as content, once as once
