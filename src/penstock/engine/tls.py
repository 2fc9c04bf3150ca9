"""TLS contexts, for the drivers that take one."""

import ssl

from penstock.errors import SettingsError
from penstock.settings import DatabaseSettings, TlsMode

__all__ = ["tls_context"]


def tls_context(settings: DatabaseSettings) -> ssl.SSLContext:
    """Make the context for a connection that has to be encrypted.

    Args:
        settings: With a ``tls`` that is neither unset nor ``disable``.

    Returns:
        A context that checks the certificate with ``verify-ca`` and the host's name as well
        with ``verify-full``, against ``tls_ca_file`` or else the system's authorities.

    Raises:
        SettingsError: ``tls_ca_file`` holds no certificate that can be read, or ``tls_cert_file``
            and ``tls_key_file`` no pair of certificate and key.
    """
    try:
        context = ssl.create_default_context(cafile=settings.tls_ca_file)
    except OSError as error:  # ssl.SSLError is one
        given = f"tls_ca_file={str(settings.tls_ca_file)!r}"
        raise SettingsError(f"{given}: a file of PEM certificates is accepted") from error
    context.check_hostname = settings.tls is TlsMode.VERIFY_FULL
    if settings.tls is None or not settings.tls.verifies:
        context.verify_mode = ssl.CERT_NONE
    if settings.tls_cert_file is not None:
        _load_own(context, settings)
    return context


def _load_own(context: ssl.SSLContext, settings: DatabaseSettings) -> None:
    certificate, key = str(settings.tls_cert_file), settings.tls_key_file
    try:
        # Without a password, OpenSSL would ask for one at the terminal.
        context.load_cert_chain(certificate, key, password=lambda: b"")
    except OSError as error:
        given = f"tls_cert_file={certificate!r}, tls_key_file={'' if key is None else str(key)!r}"
        raise SettingsError(
            f"{given}: PEM files of a certificate and its key, without a password, are accepted"
        ) from error
