"""The rule for parts of the system that a test needs and a machine may lack."""

import os

import pytest


def require_part(name: str, *, present: object, remedy: str) -> None:
    """Skip the asking test where a part is missing, or fail it where every part must be there.

    Args:
        name: What is needed, such as ``MariaDB``.
        present: Anything true where the machine has it.
        remedy: How to get it, such as ``apt-get install mariadb-server``.

    Raises:
        pytest.skip.Exception: It is missing on somebody's own machine.
        pytest.fail.Exception: It is missing in CI (``CI=true``), which promises to run everything.
    """
    if present:
        return
    reason = f"{name} is not on this machine: {remedy}"
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)
