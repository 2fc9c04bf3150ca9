from random import Random

from penstock.demo.run import traffic
from penstock.load import Request


def requests(kind: str, count: int, users: int) -> list[Request]:
    (found,) = (candidate for candidate in traffic(users).kinds if candidate.name == kind)
    random = Random(5)
    return [found.make(random) for _ in range(count)]


def test_every_created_user_is_somebody_else() -> None:
    bodies = [request.json for request in requests("POST /users/", 1000, users=10)]

    for field in ("email", "username", "password"):
        assert len({body[field] for body in bodies if isinstance(body, dict)}) == 1000


def test_only_users_that_exist_are_asked_for() -> None:
    paths = {request.path for request in requests("GET /users/{id}", 200, users=3)}

    assert paths == {"/users/1", "/users/2", "/users/3"}


def test_creating_is_rare_and_every_kind_occurs() -> None:
    random = Random(29)
    scenario = traffic(100)
    names = [scenario.draw(random)[0] for _ in range(6000)]

    assert set(names) == {"GET /users/{id}", "GET /users/", "POST /users/", "GET /health"}
    assert 100 < names.count("POST /users/") < 300
