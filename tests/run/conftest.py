"""The small run, fitted once."""

import pytest
from small_run import make_split, small_config

import jaxrec


@pytest.fixture(scope="session")
def split():
    return make_split()


@pytest.fixture(scope="session")
def run(split, tmp_path_factory):
    return jaxrec.fit(small_config(), split, tmp_path_factory.mktemp("runs") / "small")
