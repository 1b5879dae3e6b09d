"""The names of jaxrec.data, and what importing it costs."""

import subprocess
import sys

import pytest

from jaxrec import data


@pytest.mark.parametrize("name", data.__all__)
def test_every_exported_name_is_there(name):
    assert getattr(data, name).__name__ == name
    assert name in dir(data)


def test_unknown_names_are_attribute_errors():
    with pytest.raises(AttributeError, match="has no attribute 'read_minds'"):
        data.read_minds  # noqa: B018


def test_importing_the_package_imports_neither_polars_nor_grain():
    code = "import sys, jaxrec.data; sys.exit(any(name in sys.modules for name in ('polars', 'grain')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
