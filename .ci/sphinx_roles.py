"""Docstrings refer to names by Sphinx's roles; pages of Markdown need links in their place."""

import re

from griffe import Class, Docstring, Extension, Module, Object

_ROLE = re.compile(r":(?:attr|class|exc|func|meth|mod):`([\w.]+)`")


class Roles(Extension):
    """Turns each role into a link, where the name that it gives has an entry."""

    def on_package(self, *, pkg: Module, **_: object) -> None:
        """Rewrite the docstrings of a package.

        Args:
            pkg: The package.
        """
        _rewrite(pkg)


def _rewrite(owner: Object) -> None:
    if owner.docstring is not None:
        _link(owner.docstring, owner)
    for member in owner.members.values():
        if isinstance(member, Object):
            _rewrite(member)


def _link(docstring: Docstring, owner: Object) -> None:
    def linked(role: re.Match[str]) -> str:
        name = role[1]
        return f"<autoref identifier={_path(owner, name)!r} optional><code>{name}</code></autoref>"

    docstring.value = _ROLE.sub(linked, docstring.value)


def _path(owner: Object, name: str) -> str:
    scope = owner if isinstance(owner, (Class, Module)) else owner.parent
    while scope is not None:
        if name in scope.members:
            return f"{scope.path}.{name}"
        scope = scope.parent
    return name
