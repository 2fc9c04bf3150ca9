"""The targets of a load run as a person writes them, and the scenario that they make."""

import json
import re
import tomllib
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from penstock.base_error import SettingsError
from penstock.load.scenario import Request, RequestKind, Scenario
from penstock.load.template import Template

_NUMBER = r"[-+]?(?:[.,]?\d[\d.,]*(?:e[-+]?\d+)?|nan|inf(?:inity)?)"
"""What is meant as a weight, also one that is refused."""
_TARGET = re.compile(
    rf"(?P<request>[A-Z]+ +/\S*?)(?: +(?P<body>[^\s=].*?))?(?: *= *(?P<weight>(?i:{_NUMBER})))?",
    re.DOTALL,
)
_REQUEST = re.compile(r"([A-Z]+) +(/[^\s\x00-\x1f\x7f\ud800-\udfff]*)")
_SECRET = re.compile(
    r"([?&][^=&{}]*(?:token|key(?!word)|secret|passw|passphrase|pwd|(?<![a-z])sig|"
    r"auth(?!or(?:s|_|=))|credential|jwt|session)[^=&{}]*=)(?!\{[^{}]*\}(?:&|$))[^&\s]+",
    re.IGNORECASE,
)
"""The value of a query's parameter that is called like a secret, unless it is a placeholder."""
_HEAVIEST = 1e9


class Target(BaseModel):
    """A request that is repeated, with its share of all.

    Args:
        request: Method and path, such as ``GET /users/{1..10000}``; the path may have the
            placeholders of a `Template`, and is percent-encoded where it is not ASCII.
        weight: Its share, relative to the others' weights; above 0, up to 1e9.
        body: JSON, which may have placeholders: a text, or a value.
        name: Under which it is reported; None for the method and path, in which the values of
            parameters that are called like secrets, such as ``token``, are ``***``.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    request: str
    weight: float = Field(default=1.0, gt=0, le=_HEAVIEST, allow_inf_nan=False)
    body: Any = None
    name: str | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a target from one line.

        Args:
            text: ``METHOD /path``, then a space and a JSON body if there is one, then ``=`` and a
                weight if it is not 1.

        Raises:
            SettingsError: It is something else, or its end can be a weight or a query's value.
        """
        found, shown = _TARGET.fullmatch(text.strip()), _masked(text)
        if found is None:
            raise SettingsError(
                f"--target {shown!r}: METHOD /path, a JSON body if any, and =WEIGHT accepted, "
                "such as 'GET /users/{1..10000}=8'"
            )
        request, body, weight = found["request"], found["body"], found["weight"]
        last = request.partition("?")[2].rpartition("&")[2]
        if weight is not None and body is None and last and "=" not in last:
            raise SettingsError(
                f"--target {shown!r}: its end can be the weight or the value of {last!r}; "
                "add the weight, such as =1"
            )
        try:
            return cls.model_validate({"request": request, "body": body, "weight": weight or 1})
        except ValidationError as error:
            raise SettingsError(
                f"--target {shown!r}: weight {weight}; above 0, up to {_HEAVIEST:g} accepted"
            ) from error

    @property
    def label(self) -> str:
        """The name, or the method and path without the values of secrets."""
        return self.name or _masked(" ".join(self.request.split()))

    @property
    def has_secret(self) -> bool:
        """Whether its query has a parameter that is called like a secret, with a fixed value."""
        return _SECRET.search(self.request) is not None

    def kind(self) -> RequestKind:
        """Return what makes its requests.

        Raises:
            SettingsError: The path, a placeholder or the body cannot be used.
        """
        try:
            return self._kind()
        except SettingsError as error:
            raise SettingsError(f"target {self.label!r}: {error}") from error

    def _kind(self) -> RequestKind:
        found = _REQUEST.fullmatch(self.request)
        if found is None:
            raise SettingsError("METHOD /path accepted, without spaces and control characters")
        method, path = found[1], Template.of_path(found[2])
        body = self._body()

        def make(random: Random) -> Request:
            filled = None if body is None else body.render(random)
            return Request(path.render(random), method, body=filled)

        return RequestKind(self.label, self.weight, make)

    def _body(self) -> Template | None:
        if self.body is None:
            return None
        try:
            text = self.body if isinstance(self.body, str) else json.dumps(self.body)
            json.loads(Template.of_json(text).render(Random(0)))  # noqa: S311 - a sample
        except (TypeError, ValueError) as error:
            raise SettingsError(f"the body is not JSON: {error}") from error
        return Template.of_json(text)


def _masked(text: str) -> str:
    return _SECRET.sub(r"\1***", text)


class _ScenarioFile(BaseModel):
    model_config = ConfigDict(extra="forbid")

    target: list[Target] = Field(min_length=1)


def read_targets(path: Path) -> list[Target]:
    """Read a scenario file: TOML with a ``[[target]]`` for each, or the same as JSON.

    Args:
        path: Of the file; JSON if it ends in ``.json``.

    Raises:
        SettingsError: It cannot be read, or has something else in it.
    """
    try:
        text = path.read_text(encoding="utf-8")
        content = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
        return _ScenarioFile.model_validate(content).target
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise SettingsError(f"--scenario {path}: {place}: {first['msg']}") from error
    except (OSError, ValueError) as error:
        raise SettingsError(f"--scenario {path}: {error}") from error


def scenario_of(targets: Sequence[Target]) -> Scenario:
    """Return the mixture of targets.

    Args:
        targets: At least one, with distinct names.

    Raises:
        SettingsError: One cannot be used, there is none, or two have one name.
    """
    return Scenario(tuple(target.kind() for target in targets))
