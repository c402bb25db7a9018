"""The TLS context of a broker's connection."""

from __future__ import annotations

import ssl

from tracker_store_async.errors import ConfigurationError


def client_context(
    cafile: str | None,
    certfile: str | None,
    keyfile: str | None,
    *,
    check_hostname: bool = True,
    verify: bool = True,
    key_password: str | None = None,
) -> ssl.SSLContext:
    """Return a context that checks the server and may present a certificate.

    Args:
        cafile: Certificates to check the server against; None is the system's.
        certfile: The client's certificate, or None.
        keyfile: Its private key, where it is in a file of its own.
        check_hostname: Whether the certificate must name the host.
        verify: Whether to check the certificate at all.
        key_password: Password of the key.

    Raises:
        ConfigurationError: A file is missing or holds something else.
    """
    try:
        context = ssl.create_default_context(cafile=cafile)
        if certfile is not None:
            # Without a password OpenSSL would ask the terminal, and block the loop.
            context.load_cert_chain(certfile, keyfile, key_password or "")
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        files = ", ".join(name for name in (cafile, certfile, keyfile) if name)
        raise ConfigurationError(
            f"event_broker: the TLS files cannot be loaded ({files}): they must exist "
            "and hold PEM certificates and the matching, readable key"
        ) from error
    context.check_hostname = check_hostname and verify
    if not verify:
        context.verify_mode = ssl.CERT_NONE
    return context
