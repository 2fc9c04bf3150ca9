import sys
from typing import Any

import pytest
from fastapi.testclient import TestClient


@pytest.mark.parametrize("turn", [1, 2])
def test_requests_and_a_websocket(penstock_test_client: TestClient, turn: int) -> None:
    assert penstock_test_client.post("/words/a").status_code == 201
    with penstock_test_client.websocket_connect("/socket") as socket:
        socket.send_text("by the socket")
        assert socket.receive_json() == 3
    assert penstock_test_client.get("/words").json() == ["start", "a", "by the socket"]


@pytest.mark.parametrize("name", ["penstock_client", "penstock_database"])
def test_a_plain_test_takes_no_async_fixture(request: Any, name: str) -> None:
    with pytest.raises(pytest.fail.Exception, match="penstock_test_client"):
        request.getfixturevalue(name)


def test_modules_are_found_in_the_root_directory(pytestconfig: pytest.Config) -> None:
    assert sys.path[-1] == str(pytestconfig.rootpath)
