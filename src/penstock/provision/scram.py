"""The SCRAM-SHA-256 secret of a password, as PostgreSQL and PgBouncer store it (RFC 5802, 7677)."""

import hashlib
import hmac
import re
import secrets
import stringprep
import unicodedata
from base64 import b64decode, b64encode

ITERATIONS = 4096
"""PostgreSQL's ``scram_iterations`` by default."""
_SECRET = re.compile(r"SCRAM-SHA-256\$(\d+):([A-Za-z0-9+/=]+)\$[A-Za-z0-9+/=]+:[A-Za-z0-9+/=]+")


def secret_of(password: str, salt: bytes | None = None, iterations: int = ITERATIONS) -> str:
    """Return what a server stores in place of a password, which cannot be had from it.

    Args:
        password: In the clear.
        salt: Random bytes; None for new ones.
        iterations: How often it is hashed.
    """
    salt = secrets.token_bytes(16) if salt is None else salt
    salted = hashlib.pbkdf2_hmac("sha256", _prepared(password).encode(), salt, iterations)
    stored = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    server = hmac.digest(salted, b"Server Key", "sha256")
    salt64, stored64, server64 = (b64encode(part).decode() for part in (salt, stored, server))
    return f"SCRAM-SHA-256${iterations}:{salt64}${stored64}:{server64}"


def secret_in(text: str, password: str) -> str | None:
    """Return the secret of a password from a text that may have one; None where it has none.

    Args:
        text: Such as that of an earlier ``userlist.txt``.
        password: In the clear.
    """
    for found in _SECRET.finditer(text):
        secret = secret_of(password, b64decode(found[2]), int(found[1]))
        if hmac.compare_digest(secret, found[0]):
            return secret
    return None


_PROHIBITED = (
    stringprep.in_table_c12,
    stringprep.in_table_c21_c22,
    stringprep.in_table_c3,
    stringprep.in_table_c4,
    stringprep.in_table_c5,
    stringprep.in_table_c6,
    stringprep.in_table_c7,
    stringprep.in_table_c8,
    stringprep.in_table_c9,
    stringprep.in_table_a1,
)


def _prepared(password: str) -> str:
    """Return a password as SASLprep (RFC 4013) has it; unchanged where that refuses it.

    So does PostgreSQL: what cannot be prepared is hashed as it is.
    """
    mapped = "".join(
        " " if stringprep.in_table_c12(each) else each
        for each in password
        if not stringprep.in_table_b1(each)
    )
    prepared = unicodedata.normalize("NFKC", mapped)
    if not prepared or any(is_in(each) for each in prepared for is_in in _PROHIBITED):
        return password
    if any(map(stringprep.in_table_d1, prepared)):
        is_mixed = any(map(stringprep.in_table_d2, prepared))
        ends = stringprep.in_table_d1(prepared[0]) and stringprep.in_table_d1(prepared[-1])
        if is_mixed or not ends:
            return password
    return prepared
