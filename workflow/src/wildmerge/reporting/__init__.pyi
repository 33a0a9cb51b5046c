"""Figures, tables, the report and model cards."""

from .inputs import read_inputs as read_inputs
from .layout import write_table as write_table
from .model_card import model_card as model_card
from .page import build_page as build_page
from .plots import save as save
