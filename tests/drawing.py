"""Inputs of figures and tables for the tests, as the rules give them."""

import yaml
from project import ROOT
from wildmerge.reporting.inputs import Inputs, Similarity

PAPERS = yaml.safe_load((ROOT / "config/recipes.yaml").read_text())


def inputs(
    recipes=PAPERS, study=None, checkpoints=None, similarities=None, published=None, **frames
):
    """Inputs with these frames by name; by default the recipes of config/recipes.yaml."""
    similar = {
        base: Similarity([str(name) for name in arrays["models"]], arrays["gram"])
        for base, arrays in (similarities or {}).items()
    }
    return Inputs(study or {}, checkpoints or {}, recipes, frames, similar, published or {})
