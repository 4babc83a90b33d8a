"""Settings by dotted names: listed with their meaning, changed, refused by name."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wm_models.errors import ModelError
from wm_models.interface.overrides import read_changes, resolved, settings_of, written
from wm_models.registry import ENTRIES, preset

CPU = preset("mwm_cpu")


@pytest.mark.parametrize("name", ENTRIES)
def test_every_setting_given_as_text_of_its_own_value_changes_nothing(name):
    chosen = preset(name)
    for setting in settings_of(chosen).values():
        text = read_changes(written({setting.name: setting.value}))
        unchanged = chosen.varied(text)
        assert (unchanged.model, unchanged.learner) == (chosen.model, chosen.learner), setting.name


@pytest.mark.parametrize("name", ENTRIES)
def test_resolved_settings_are_json_and_give_the_same_preset(name):
    chosen = preset(name)
    stored = json.loads(json.dumps(resolved(chosen), allow_nan=False))
    restored = chosen.varied(stored)
    assert (restored.model, restored.learner) == (chosen.model, chosen.learner)


def test_the_comment_of_a_field_is_its_meaning():
    listed = settings_of(CPU)
    assert listed["model.kl.free"].meaning == "nats per step, after mixing and scaling"
    assert listed["model.demonstrations"].meaning.startswith("weight of the likelihood of demonstr")
    assert listed["learner.agent_batch.batch"].value == 8


def test_changes_have_their_types_and_the_preset_stays_as_it_was():
    changed = CPU.varied(
        read_changes(
            "learner.agent_batch.batch=32, model.autoencoder.channels=[4,8,16],"
            "model.discount=true,model.kl.scale=3e-1"
        )
    )
    assert changed.learner.agent_batch.batch == 32
    assert changed.model.autoencoder.channels == (4, 8, 16)
    assert (changed.model.discount, changed.model.kl.scale) == (True, 0.3)
    assert changed.name == "mwm_cpu" and CPU.settings == {}
    assert changed.settings == {
        "learner.agent_batch.batch": 32,
        "model.autoencoder.channels": [4, 8, 16],
        "model.discount": True,
        "model.kl.scale": 0.3,
    }
    assert changed.build(4).config == changed.model


def test_a_list_of_words_is_read_as_it_is_written():
    apv = preset("apv_cpu")
    assert settings_of(apv)["learner.load"].kind == "[words]"
    changed = apv.varied(read_changes("learner.load=[encoder, decoder],learner.pretrained=/a b"))
    assert changed.learner.load == ("encoder", "decoder")
    assert written(changed.settings) == "learner.load=[encoder,decoder],learner.pretrained=/a b"
    with pytest.raises(ModelError, match=r"learner\.load: got 3, expected"):
        apv.varied({"learner.load": 3})


def test_a_part_that_is_as_another_one_begins_with_its_settings():
    dreamer = preset("dreamer_v2_cpu")
    assert dreamer.model.behavior_heads is None
    changed = dreamer.varied(read_changes("model.behavior_heads.units=24,model.heads.layers=2"))
    assert changed.model.heads == replace(dreamer.model.heads, layers=2)
    assert changed.model.behavior_heads == replace(changed.model.heads, units=24)
    again = dreamer.varied(json.loads(json.dumps(changed.settings)))
    assert again.model == changed.model
    further = again.varied({"model.behavior_heads.layers": 1}).model.behavior_heads
    assert further == replace(dreamer.model.heads, units=24, layers=1)
    with pytest.raises(ModelError, match=r"'model.behavior_heads.unit', expected .*heads.units"):
        dreamer.varied({"model.behavior_heads.unit": 24})


def test_a_part_that_a_preset_does_without_is_named_with_the_remedy():
    with pytest.raises(ModelError, match=r"no model.probe, expected .*Choose a preset that has it"):
        preset("dino_wm_repo").varied({"model.probe.units": 4})


def test_settings_of_one_part_are_checked_together():
    vit = CPU.varied({"model.vit.heads": 6, "model.vit.width": 48}).model.vit
    assert (vit.heads, vit.width) == (6, 48)


def test_later_changes_override_earlier_ones():
    twice = CPU.varied({"model.gamma": 0.9}).varied({"model.gamma": 0.8, "model.kl.free": 1})
    assert twice.settings == {"model.gamma": 0.8, "model.kl.free": 1.0}


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("model.kl.scal", "1", r"got 'model.kl.scal', expected .*Did you mean 'model.kl.scale'"),
        ("learnr.train_every", "1", r"got 'learnr', expected one of model, learner"),
        ("name", "x", r"got 'name', expected one of model, learner"),
        ("learner.agent_batch", "8", r"expected one of learner.agent_batch.batch, "),
        ("model.gamma.x", "1", r"model.gamma has no settings of its own"),
        ("model.gamma", "x", r"model.gamma: got 'x', expected a number"),
        ("model.gamma", "", r"model.gamma: got '', expected a number"),
        ("model.gamma", None, r"model.gamma: got None, expected a number"),
        ("model.gamma", "nan", r"got nan, expected a finite number of more than 0 and at most 1"),
        ("model.gamma", "0", r"more than 0"),
        ("model.gamma", "1.1", r"got 1.1, expected .* at most 1"),
        ("model.gamma", True, r"got True, expected a number"),
        ("learner.train_every", "2.5", r"got '2.5', expected a whole number"),
        ("learner.train_every", 2.5, r"got 2.5, expected a whole number"),
        ("learner.train_every", "0", r"got 0, expected at least 1"),
        ("learner.agent_batch.length", "1", r"learner.agent_batch.length: got 1, expected"),
        ("model.discount", "maybe", r"got 'maybe', expected true or false"),
        ("model.discount", 1, r"got 1, expected true or false"),
        ("model.autoencoder.channels", "[4,8]", r"expected \[3 whole numbers\]"),
        ("model.autoencoder.channels", "[4,8,0]", r"three numbers from 1 to"),
        ("model.vit.heads", "5", r"a multiple of 4 and of heads, 5"),
        ("model.rssm.deter", "1000000000", r"at most 16384"),
        ("learner.actor.eps", "0", r"got 0.0, expected .* more than 0"),
        ("learner.behavior.actor_grad", "up", r"expected 'dynamics', 'reinforce' or 'both'"),
    ],
)
def test_an_invalid_change_is_refused_by_name(name, value, message):
    with pytest.raises(ModelError, match=message) as refused:
        CPU.varied({name: value})
    assert str(refused.value).startswith("set: ")


@pytest.mark.parametrize("text", ["learner.train_every", "=4", "a b", "model.gamma:0.9"])
def test_changes_that_are_no_assignments_are_refused(text):
    with pytest.raises(ModelError, match="expected NAME=VALUE"):
        read_changes(text)


@settings(max_examples=200)
@given(st.dictionaries(st.sampled_from(sorted(settings_of(CPU))), st.text(max_size=8), max_size=3))
def test_any_text_gives_a_preset_or_a_clear_error(changes):
    try:
        assert set(CPU.varied(changes).settings) == set(changes)
    except ModelError as error:
        assert str(error).startswith("set: ")


@pytest.mark.parametrize("name", ENTRIES)
def test_every_setting_says_what_it_means(name: str) -> None:
    every = settings_of(preset(name)).values()
    assert [each.name for each in every if not each.meaning] == []
