"""What the demo asks of the users service."""

from random import Random

from penstock.load import Request, RequestKind, Scenario

__all__ = ["traffic"]

_PAGE = 20


def traffic(users: int) -> Scenario:
    """Return a mixture of mostly reads; creating is rare, because each one hashes a password.

    Args:
        users: How many there are, with the ids from 1 on.
    """

    def create(random: Random) -> Request:
        name = f"visitor-{random.getrandbits(64):016x}"
        password = f"{random.getrandbits(128):032x}"
        body = {"email": f"{name}@example.com", "username": name, "password": password}
        return Request("/users/", method="POST", json=body)

    def read_page(random: Random) -> Request:
        return Request(f"/users/?skip={random.randrange(users)}&limit={_PAGE}")

    def read_one(random: Random) -> Request:
        return Request(f"/users/{random.randint(1, users)}")

    def check_health(_: Random) -> Request:
        return Request("/health")

    return Scenario(
        (
            RequestKind("GET /users/{id}", 70, read_one),
            RequestKind("GET /users/", 17, read_page),
            RequestKind("POST /users/", 3, create),
            RequestKind("GET /health", 10, check_health),
        )
    )
