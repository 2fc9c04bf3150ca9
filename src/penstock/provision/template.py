"""The templates of generated files."""

from collections.abc import Mapping
from importlib.resources import files
from string import Template


def filled(name: str, values: Mapping[str, object]) -> str:
    """Return the text of a template with its placeholders filled in.

    Args:
        name: Of its file in ``templates/``.
        values: By placeholder; all of them.
    """
    text = files("penstock.provision").joinpath("templates", name).read_text("utf-8")
    return Template(text).substitute(values)
