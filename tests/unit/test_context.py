"""A role and settings: what is accepted, what takes precedence, and what is missing."""

import asyncio
import enum
import pickle
from typing import Any
from uuid import UUID

import pytest

from penstock import SessionContext
from penstock.context import NO_CONTEXT, ContextSource, request_context
from penstock.errors import ContextError, ContextRequired


class Colour(str, enum.Enum):  # noqa: UP042 - whose str() is its name
    """A text that has a name as well."""

    RED = "red"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("7", "7"),
        ("ü ' \" $1 %s :x", "ü ' \" $1 %s :x"),
        (7, "7"),
        (-1, "-1"),
        (True, "true"),
        (False, "false"),
        (UUID(int=7), "00000000-0000-0000-0000-000000000007"),
        (Colour.RED, "red"),
    ],
)
def test_a_value_becomes_text(value: Any, text: str) -> None:
    assert SessionContext(settings={"app.tenant": value}).pairs == (("app.tenant", text),)


@pytest.mark.parametrize("value", [None, "", 1.5, b"7", ["7"], "\0", "a\0", "\ud800", object()])
def test_a_value_that_cannot_be_set_is_refused_by_its_name_alone(value: Any) -> None:
    with pytest.raises(ContextError) as refused:
        SessionContext(settings={"app.tenant": value})

    assert "'app.tenant'" in str(refused.value)
    assert "\0" not in str(refused.value)


def test_a_setting_of_the_servers_own_may_be_empty() -> None:
    assert SessionContext(settings={"search_path": ""}).pairs == (("search_path", ""),)


@pytest.mark.parametrize(
    "name", ["app.tenant", "APP.Tenant_2", "_a.b$", "a.b.c", "statement_timeout", "search_path"]
)
def test_a_name_is_accepted(name: str) -> None:
    assert SessionContext(settings={name: "x"}).pairs == ((name, "x"),)


@pytest.mark.parametrize(
    "name",
    [
        *("", " ", "a b", "a.", ".a", "a..b", "7.a", "a.7", "a'b", 'a"b', "a;b", "a\n", "ä.b"),
        *("role", "ROLE", "client_encoding", "session_authorization", "transaction_read_only"),
        *("transaction_isolation", "transaction_deferrable", "Default_Transaction_Read_Only"),
        *(7, None),
    ],
)
def test_a_name_that_no_context_can_set_is_refused(name: Any) -> None:
    with pytest.raises(ContextError, match="is refused: "):
        SessionContext(settings={name: "x"})


def test_one_setting_is_not_given_twice() -> None:
    with pytest.raises(ContextError, match="twice"):
        SessionContext(settings={"app.tenant": "7", "App.Tenant": "8"})


@pytest.mark.parametrize("role", ["", "none", "NONE", "a\0", "\ud800", 7, b"x"])
def test_a_role_that_is_none_or_no_name_is_refused(role: Any) -> None:
    with pytest.raises(ContextError, match=r"^role "):
        SessionContext(role)


@pytest.mark.parametrize("settings", ["app.tenant=7", [("app.tenant", "7")], 7])
def test_settings_that_are_no_mapping_are_refused(settings: Any) -> None:
    with pytest.raises(ContextError, match=r"^settings is a "):
        SessionContext(settings=settings)


def test_the_role_is_set_last() -> None:
    context = SessionContext("reports", {"app.tenant": "7", "statement_timeout": 5000})

    assert [name for name, _ in context.pairs] == ["app.tenant", "statement_timeout", "role"]


def test_values_are_in_no_repr() -> None:
    context = SessionContext("se cret", {"app.tenant": "QZhunterZQ"})

    assert repr(context) == "SessionContext(role=..., settings of app.tenant)"


def test_a_context_does_not_change_with_what_it_was_made_of_and_can_be_sent_elsewhere() -> None:
    given: dict[str, Any] = {"app.tenant": 7}
    context = SessionContext(settings=given)
    given["app.tenant"] = 8

    assert context == SessionContext(settings={"app.tenant": "7"})
    assert pickle.loads(pickle.dumps(context)) == context


def test_what_is_given_explicitly_takes_the_place_of_its_like_and_leaves_the_rest() -> None:
    request = SessionContext("web", {"app.tenant": "7", "app.user": "eve"})

    other = request.overridden_by(SessionContext(settings={"APP.TENANT": "8"}))
    assert other.pairs == (("app.user", "eve"), ("APP.TENANT", "8"), ("role", "web"))
    assert request.overridden_by(SessionContext("batch")).role == "batch"


class Request:
    """A request whose context is found out by waiting."""

    def __init__(self, context: SessionContext) -> None:
        self.context = context
        self.is_known = False

    def known(self, database: object) -> SessionContext | None:
        assert database == "the database"
        return self.context if self.is_known else None

    async def of(self, database: object) -> SessionContext:
        await asyncio.sleep(0)
        self.is_known = True
        return self.context


def source(*required: str) -> ContextSource:
    return ContextSource("the database", required, "postgresql")


async def test_outside_of_requests_there_is_what_was_given() -> None:
    tenant = source().overridden_by(SessionContext(settings={"app.tenant": "7"}))

    assert source().at_once() == await source().settings() == ()
    assert tenant.at_once() == await tenant.settings() == (("app.tenant", "7"),)


async def test_what_a_request_says_is_waited_for_once_and_overridden() -> None:
    request = Request(SessionContext("web", {"app.tenant": "7"}))
    request_context.set(request)
    tenant = source("role").overridden_by(SessionContext(settings={"app.tenant": "8"}))

    assert tenant.at_once() is None
    assert await tenant.settings() == (("app.tenant", "8"), ("role", "web"))
    assert tenant.at_once() == (("app.tenant", "8"), ("role", "web"))
    assert source().at_once() == (("app.tenant", "7"), ("role", "web"))


async def test_a_bound_source_stays_with_its_request() -> None:
    request = Request(SessionContext(settings={"app.tenant": "7"}))
    token = request_context.set(request)
    bound = source().bound()
    request_context.reset(token)

    assert await bound.settings() == (("app.tenant", "7"),)
    assert await source().bound().settings() == ()


@pytest.mark.parametrize("context", [NO_CONTEXT, SessionContext("web", {"app.user": "eve"})])
async def test_what_is_required_and_missing_is_refused_by_name(context: SessionContext) -> None:
    for request in (None, Request(context)):
        request_context.set(request)
        lacking = source("app.tenant", "app.user").overridden_by(context)
        assert lacking.at_once() is None
        with pytest.raises(ContextRequired, match=r"requires app\.tenant"):
            await lacking.settings()
        assert lacking.at_once() is None


def test_required_names_are_found_in_any_case_and_the_role_is_one() -> None:
    given = SessionContext("web", {"app.tenant": "7"})

    assert source("App.Tenant", "Role").overridden_by(given).at_once() == given.pairs


@pytest.mark.parametrize("dialect", ["mysql", "mariadb", "sqlite"])
def test_other_databases_refuse_it(dialect: str) -> None:
    other = ContextSource("the database", (), dialect)

    with pytest.raises(ContextError, match=f"and this is {dialect}"):
        other.overridden_by(SessionContext("web"))
    assert other.overridden_by(NO_CONTEXT) is other
