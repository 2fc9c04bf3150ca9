"""Until when a certificate is valid: the one thing of it that no library at hand tells."""

import ssl
from datetime import UTC, datetime

_VERSION, _UTC_TIME = 0xA0, 0x17


def valid_until(pem: str) -> datetime:
    """Return when the first certificate of a file ends.

    Args:
        pem: The text of the file.

    Raises:
        ValueError: There is no certificate in it.
    """
    begin, end = pem.find(ssl.PEM_HEADER), pem.find(ssl.PEM_FOOTER)
    if begin < 0 or end < begin:
        raise ValueError("there is no certificate in the file")
    der = ssl.PEM_cert_to_DER_cert(pem[begin : end + len(ssl.PEM_FOOTER)])
    # RFC 5280, 4.1: version (optional), serial number, signature, issuer, validity.
    fields = _parts(_parts(_parts(der)[0][1])[0][1])
    validity = fields[4 if fields[0][0] == _VERSION else 3][1]
    kind, text = _parts(validity)[1]
    layout = "%y%m%d%H%M%SZ" if kind == _UTC_TIME else "%Y%m%d%H%M%SZ"
    return datetime.strptime(text.decode("ascii"), layout).replace(tzinfo=UTC)


def _parts(der: bytes) -> list[tuple[int, bytes]]:
    """Return the tags and contents of the elements that stand one behind the other."""
    parts, at = [], 0
    while at < len(der):
        tag, length, at = der[at], der[at + 1], at + 2
        if length & 0x80:
            count = length & 0x7F
            length, at = int.from_bytes(der[at : at + count]), at + count
        parts.append((tag, der[at : at + length]))
        at += length
    return parts
