"""Classes of one's own in a config: registered, written, read, and what is refused."""

import dataclasses
import json
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import pytest
from own_classes import BagOfItems, ConstantSchedule, DecayingAttention, HalvedLoss
from small_run import MODEL, make_split, small_config

import jaxrec
from jaxrec.models.diffurec import DiffuRecRecommender
from jaxrec.registry import COMPONENTS

WITH_OWN_PARTS = dataclasses.replace(MODEL, attention=DecayingAttention(0.25), loss_function=HalvedLoss())
OWN_CLASSES = ("BagOfItems", "ConstantSchedule", "DecayingAttention", "HalvedLoss")


@pytest.fixture
def _registered():
    """Takes out again what a test registers."""
    former = dict(COMPONENTS)
    yield
    COMPONENTS.clear()
    COMPONENTS.update(former)


restored = pytest.mark.usefixtures("_registered")


@pytest.mark.parametrize("model", [BagOfItems(), WITH_OWN_PARTS], ids=["recommender", "attention"])
def test_a_model_of_ones_own_is_fitted_loaded_and_recommends_the_same(model, tmp_path):
    split, config = make_split(), dataclasses.replace(small_config(), model=model)
    run = jaxrec.fit(config, split, tmp_path / "run")
    loaded = jaxrec.load(tmp_path / "run", split=split)
    assert loaded.config.model == model
    histories = {"ann": ["i3", "i5"], "bob": ["i8"]}
    assert loaded.recommend(histories).equals(run.recommend(histories))
    assert loaded.evaluate("test", save=False) == run.evaluate("test", save=False)


def test_a_schedule_of_ones_own_survives():
    config = jaxrec.Config(model=DiffuRecRecommender(schedule=ConstantSchedule(8, 0.2)))
    assert jaxrec.config_from_json(json.loads(json.dumps(jaxrec.config_to_json(config)))) == config


def test_settings_of_a_preset_may_name_ones_own_class():
    config = jaxrec.preset("sasrec", {"model.attention": {"class": "DecayingAttention", "rate": 2.0}})
    assert config.model.attention == DecayingAttention(2.0)


class Unknown(nn.Module):
    """Not registered."""

    def __call__(self, query, key, mask, *, train):
        raise AssertionError("the training had begun")


def test_a_class_that_is_not_registered_is_refused_before_the_training(tmp_path):
    config = dataclasses.replace(small_config(), model=dataclasses.replace(MODEL, attention=Unknown()))
    words = (
        r"config\.model\.attention is a .*test_registry\.Unknown, which is not registered.*@jaxrec\.register"
    )
    with pytest.raises(ValueError, match=words):
        jaxrec.config_to_json(config)
    with pytest.raises(ValueError, match=words):
        jaxrec.fit(config, make_split(), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@restored
def test_what_could_not_be_read_back_is_refused_before_the_training():
    @jaxrec.register
    @dataclasses.dataclass(frozen=True)
    class Half:
        num_items: int = 0
        max_length: int = 8

    config = dataclasses.replace(small_config(), model=Half())
    with pytest.raises(
        ValueError, match=r"config\.model must be of type Recommender, got a Half, which lacks"
    ):
        jaxrec.fit(config, make_split())


def test_loading_names_the_class_that_is_missing():
    content = jaxrec.config_to_json(jaxrec.Config(model=BagOfItems()))
    content["model"]["class"] = "BagOfItem"
    words = r"config\.model\.class is 'BagOfItem', and no class .*did you mean 'BagOfItems'.*jaxrec\.register"
    with pytest.raises(ValueError, match=words):
        jaxrec.config_from_json(content)
    del content["model"]["class"]
    with pytest.raises(
        ValueError, match=r"config\.model needs a 'class', one of BagOfItems, DiffuRecRec"
    ) as told:
        jaxrec.config_from_json(content)
    assert "DotProduct" not in str(told.value)


def make_class(name: str, module: str = "cell", default: int = 1) -> type:
    fields = [("size", int, dataclasses.field(default=default))]
    cls = dataclasses.make_dataclass(name, fields, frozen=True)
    cls.__module__ = module
    return cls


@restored
def test_the_same_class_again_replaces_the_former():
    first, second = make_class("Cell", default=1), make_class("Cell", default=2)
    assert jaxrec.register(first) is first
    assert jaxrec.register(second) is second
    assert COMPONENTS["Cell"] is second


@restored
def test_another_class_under_a_taken_name_is_refused():
    jaxrec.register(make_class("Cell"))
    with pytest.raises(ValueError, match=r"other\.Cell cannot be .* cell\.Cell as 'Cell'.*another name"):
        jaxrec.register(make_class("Cell", module="other"))
    with pytest.raises(ValueError, match=r"cell\.DotProduct cannot be .*jaxrec\.nn\.attention\.DotProduct"):
        jaxrec.register(make_class("DotProduct"))


class Plain:
    """No dataclass."""


@dataclasses.dataclass
class Changeable:
    """Not frozen."""

    size: int = 1


@dataclasses.dataclass(frozen=True)
class WithFunction:
    """A field that JSON has no form for."""

    activation: Callable[[Any], Any] = abs


class ModuleWithFunction(nn.Module):
    """Likewise."""

    size: int = 1
    activation: Callable[[Any], Any] = nn.relu


class NewField(HalvedLoss):
    """A field that is none, as the decorator of dataclasses is missing."""

    share: float = 0.5


@pytest.mark.parametrize(
    ("cls", "words"),
    [
        (Plain, "Plain cannot be registered, for it is neither a frozen dataclass nor a Linen module"),
        (Changeable, "Changeable cannot be registered, for it is neither"),
        (NewField, "NewField cannot be registered, for it is neither"),
        (WithFunction, "WithFunction cannot be registered, for its field 'activation' is of type Callable"),
        (ModuleWithFunction, "its field 'activation' is of type Callable, and a config holds numbers"),
        (HalvedLoss(), "takes a class, and HalvedLoss.* is none"),
    ],
)
def test_what_a_config_cannot_hold_is_refused(cls, words):
    with pytest.raises(ValueError, match=words):
        jaxrec.register(cls)


def test_the_registry_holds_what_is_its_own_name():
    assert {*OWN_CLASSES, "EncoderRecommender", "Config"} <= COMPONENTS.keys()
    assert all(cls.__name__ == name for name, cls in COMPONENTS.items())
