"""The role and the settings that transactions run under: whose they are, and what they may."""

import re
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Protocol, Self
from uuid import UUID

from penstock.base_error import PenstockError

Settings = tuple[tuple[str, str], ...]
"""Names and values of server settings that hold for one transaction; ``role`` is the role."""
SettingValue = str | int | bool | UUID

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_$]*(?:\.[A-Za-z_][A-Za-z0-9_$]*)*")
_NOT_SET = {
    "client_encoding": "the driver needs its own",
    "default_transaction_read_only": "read() and write() decide it",
    "role": "it has an argument of its own, role=",
    "session_authorization": "use role=",
    "transaction_deferrable": "it is an argument of read()",
    "transaction_isolation": "isolation_level= is an argument of read() and write()",
    "transaction_read_only": "read() and write() decide it",
}


class ContextError(PenstockError):
    """A role or a setting that no transaction can run under; nothing was sent."""


class ContextRequired(ContextError):  # noqa: N818 - it reads as what happened, like SQLAlchemy's
    """A transaction lacks a setting that ``requires_context`` declares; nothing was sent."""


def refused_name(name: object) -> str | None:
    """Return why a name is no setting's that a context may have; None where it is one.

    Args:
        name: Such as ``app.tenant``.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        return "letters, digits, _ and $ are accepted, with dots between, such as app.tenant"
    return _NOT_SET.get(name.lower())


@dataclass(frozen=True, repr=False)
class SessionContext:
    """A role and server settings, in force from the beginning of a transaction to its end.

    Args:
        role: What ``SET LOCAL ROLE`` would be given; None for the login's own.
        settings: Values by name, such as ``{"app.tenant": "7"}``. An int, a bool and a UUID become
            text; a setting with a dot in its name cannot be empty, which the server would take for
            one that is not set.

    Raises:
        ContextError: A name or a value cannot be set; the message names the setting, never a value.
    """

    role: str | None = None
    settings: Mapping[str, SettingValue] = field(default_factory=dict)
    pairs: Settings = field(init=False, compare=False)
    """Names and values in the order in which they are set; the role, which may lack the privilege
    for a setting, is last."""

    def __post_init__(self) -> None:
        given: object = self.settings
        if not isinstance(given, Mapping):
            kind = type(given).__name__
            raise ContextError(f"settings is a {kind}: values by name are accepted")
        texts: dict[str, str] = {}
        for name, value in self.settings.items():
            if why := refused_name(name):
                raise ContextError(f"settings: the name {name!r} is refused: {why}")
            if name.lower() in map(str.lower, texts):
                raise ContextError(f"settings[{name!r}] is there twice; case does not matter")
            texts[name] = _text(f"settings[{name!r}]", value, may_be_empty="." not in name)
        role = () if self.role is None else (("role", _role(self.role)),)
        object.__setattr__(self, "settings", texts)
        object.__setattr__(self, "pairs", (*texts.items(), *role))

    def __repr__(self) -> str:
        role = "" if self.role is None else "role=..., "
        return f"SessionContext({role}settings of {', '.join(self.settings) or 'nothing'})"

    @classmethod
    def of_pairs(cls, pairs: Settings) -> "SessionContext":
        """Return the context of names and values.

        Args:
            pairs: As the attribute has them.
        """
        if not pairs:
            return NO_CONTEXT
        settings = dict(pairs)
        return cls(settings.pop("role", None), settings)

    def overridden_by(self, other: "SessionContext") -> "SessionContext":
        """Return this context with what another one says in its place; the rest stays.

        Args:
            other: Whose role and settings take precedence.
        """
        names = {name.lower() for name in other.settings}
        kept = {name: v for name, v in self.settings.items() if name.lower() not in names}
        role = self.role if other.role is None else other.role
        return SessionContext(role, {**kept, **other.settings})


def _text(what: str, value: object, *, may_be_empty: bool = False) -> str:
    if value is None:
        raise ContextError(f"{what} is None: leave it out, or give its value")
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(int(value))
    if isinstance(value, UUID):
        return str(value)
    if not isinstance(value, str):
        kind = type(value).__name__
        raise ContextError(f"{what} is a {kind}: a str, an int, a bool or a UUID is accepted")
    text = str.__str__(value)
    if not text and not may_be_empty:
        raise ContextError(f"{what} is empty: the server would take it for one that is not set")
    if "\0" in text or not _is_encodable(text):
        raise ContextError(f"{what} has a character that PostgreSQL cannot store")
    return text


def _is_encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _role(role: object) -> str:
    if not isinstance(role, str):
        raise ContextError(f"role is a {type(role).__name__}: a role's name is accepted")
    name = _text("role", role)
    if name.lower() == "none":
        raise ContextError("role is 'none', which would be the login's own: leave it out")
    return name


NO_CONTEXT = SessionContext()


def context_of(role: str | None, settings: Mapping[str, SettingValue] | None) -> SessionContext:
    """Return the context that two arguments make.

    Args:
        role: As :class:`SessionContext` has it.
        settings: The same; None for none.
    """
    context = SessionContext(role, {} if settings is None else settings)
    return context if context.pairs else NO_CONTEXT


class RequestContext(Protocol):
    """What a request says of the contexts of its databases."""

    def known(self, database: object) -> SessionContext | None:
        """Return the context for a database; None while it has to be found out."""
        ...

    async def of(self, database: object) -> SessionContext:
        """Return the context for a database; found out once."""
        ...


request_context: ContextVar[RequestContext | None] = ContextVar(
    "penstock_request_context", default=None
)
"""That of the request which is being served; tasks that it starts inherit it."""


class ContextSource:
    """Where the transactions of one database get their context from.

    A request's context holds for everything that is done within it; what is given explicitly
    overrides it, setting by setting.

    Args:
        database: Whose transactions they are.
        required: Names of settings without which none may begin; ``role`` is the role.
        dialect: SQLAlchemy's name of its kind.

    Attributes:
        request: Returns the context of the request that is being served; None outside of requests.
        alone: What holds outside of requests; None where something is missing.
    """

    alone: Settings | None

    def __init__(self, database: object, required: tuple[str, ...], dialect: str) -> None:
        self._database = database
        self._required = required
        self._dialect = dialect
        self.request: Callable[[], RequestContext | None] = request_context.get
        self._give(NO_CONTEXT)

    def _give(self, given: SessionContext) -> None:
        self._given = given
        self.alone = None if self._missing(given) else given.pairs

    def _missing(self, context: SessionContext) -> list[str]:
        if not self._required:
            return []
        names = {name.lower() for name, _ in context.pairs}
        return [name for name in self._required if name.lower() not in names]

    def check_support(self) -> None:
        """Raise :class:`ContextError` where the database knows no such thing."""
        if self._dialect != "postgresql":
            raise ContextError(
                "A role and settings of a transaction are understood for PostgreSQL only, and "
                f"this is {self._dialect}."
            )

    def overridden_by(self, given: SessionContext) -> Self:
        """Return a source for the same database that says something explicitly.

        Args:
            given: What it says.

        Raises:
            ContextError: The database knows no such thing.
        """
        if given is NO_CONTEXT:
            return self
        self.check_support()
        source = self._copy()
        source._give(self._given.overridden_by(given))  # noqa: SLF001 - of the same class
        return source

    def bound(self) -> Self:
        """Return a source that stays with the request which is being served, wherever it is asked.

        Returns:
            Itself where no request is being served.
        """
        if (request := self.request()) is None:
            return self
        source = self._copy()
        source.request = lambda: request
        return source

    def _copy(self) -> Self:
        source = self.__class__(self._database, self._required, self._dialect)
        source.request = self.request
        source._give(self._given)  # noqa: SLF001 - of the same class
        return source

    def at_once(self, request: RequestContext | None = None) -> Settings | None:
        """Return the settings; None where :meth:`settings` has to be awaited for them.

        Args:
            request: The one that is being served, if it is at hand.
        """
        if request is None and (request := self.request()) is None:
            return self.alone
        context = request.known(self._database)
        if context is None:
            return None
        if context is NO_CONTEXT:
            return self.alone
        whole = self._whole(context)
        return None if self._missing(whole) else whole.pairs

    def _whole(self, context: SessionContext) -> SessionContext:
        return context if self._given is NO_CONTEXT else context.overridden_by(self._given)

    async def settings(self) -> Settings:
        """Return the settings, and have the request's found out if they are not known yet.

        Raises:
            ContextRequired: One of them is missing.
            Exception: What ``session_context`` raised.
        """
        request = self.request()
        context = NO_CONTEXT if request is None else await request.of(self._database)
        whole = self._whole(context)
        if missing := self._missing(whole):
            raise ContextRequired(
                f"This database requires {', '.join(missing)} of every transaction "
                "(requires_context), and nothing says it here: return it from "
                "install(session_context=...), or give it by read(), write() or with_context()."
            )
        return whole.pairs
