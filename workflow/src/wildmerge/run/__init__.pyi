"""What surrounds a job: log, GPU, scratch, shared store, cost, progress."""

from . import cost as cost
from .cost import spent as spent
from .devices import device as device
from .jobs import job as job
from .progress import (
    Progress as Progress,
    failures as failures,
    read_log as read_log,
    slurm_states as slurm_states,
    summary as summary,
    waiting as waiting,
)
from .scratch import settle as settle
from .store import content as content, once as once
