"""A study as data: sheets, plan, paths, what its rules need and share. No torch."""

from . import catalogue as catalogue, paths as paths, sheets as sheets
from .catalogue import CSV as CSV, SIMILARITY as SIMILARITY, declaration as declaration
from .experts import check_expert as check_expert, load_experts as load_experts
from .kinds import (
    GENERATION as GENERATION,
    MULTIPLE_CHOICE as MULTIPLE_CHOICE,
    TEXTS as TEXTS,
    check_metric as check_metric,
    kind_of as kind_of,
)
from .missing import mark_missing as mark_missing, ways_on as ways_on
from .needs import Needs as Needs
from .plan import BASE as BASE, IDENTITY as IDENTITY
from .questions import BITS as BITS, each as each, local_data as local_data, read_task as read_task
from .sheets import read_models as read_models, read_rows as read_rows
from .tasks import check_tasks as check_tasks, own_files as own_files
