"""The public names of the packages, each where its documentation says."""

import importlib
import inspect
from pathlib import Path

import pytest

import jaxrec

PACKAGES = tuple(
    f"jaxrec{room}"
    for room in ("", ".models", ".nn", ".diffusion", ".losses", ".metrics", ".lists", ".devices")
)
NAMES = [(package, name) for package in PACKAGES for name in importlib.import_module(package).__all__]


@pytest.mark.parametrize(("package", "name"), NAMES)
def test_every_exported_name_is_there_and_no_module(package, name):
    assert not inspect.ismodule(getattr(importlib.import_module(package), name))


def test_no_name_of_the_package_hides_a_module():
    modules = {path.stem for path in Path(jaxrec.__file__).parent.iterdir() if path.stem != "__init__"}
    assert not modules & set(jaxrec.__all__)


def test_everything_that_a_config_holds_is_public():
    public = {name for package in PACKAGES for name in importlib.import_module(package).__all__}
    sections = {type(getattr(jaxrec.Config(), name)).__name__ for name in ("data", "train", "optimizer")}
    models = {type(make().model).__name__ for make in jaxrec.PRESETS.values()}
    attentions = {"DotProduct", "Refined", "WassersteinScores", "VaeAttention", "DiffusionAttention"}
    assert sections | models | attentions | {"Penalty", "Objective"} <= public
