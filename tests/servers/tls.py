"""Certificates for the tests: a CA, one that signed nothing, a server, a client."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import trustme

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Certificates:
    """Paths of PEM files.

    Attributes:
        ca: The authority that signed the server's and the client's certificate.
        wrong_ca: Another authority: who trusts only this one must refuse the server.
        server_certificate, server_key: Of the server, for localhost and 127.0.0.1.
        client_certificate, client_key: Of a client named `client`; both are also in
            `client_pair`, in one file.
        wrong_client_certificate, wrong_client_key: The same from the other authority:
            who asks clients for a certificate must refuse it.
    """

    ca: Path
    wrong_ca: Path
    server_certificate: Path
    server_key: Path
    client_certificate: Path
    client_key: Path
    wrong_client_certificate: Path
    wrong_client_key: Path
    client_pair: Path
    wrong_client_pair: Path

    @classmethod
    def write(cls, directory: Path) -> Certificates:
        """Make them all and write them to the directory."""
        authority, stranger = trustme.CA(), trustme.CA()
        files = cls(
            *(
                directory / f"{name}.pem"
                for name in ("ca", "wrong_ca", "server", "server_key")
            ),
            *(directory / f"{name}.pem" for name in ("client", "client_key")),
            *(directory / f"wrong_{name}.pem" for name in ("client", "client_key")),
            *(directory / f"{name}_pair.pem" for name in ("client", "wrong_client")),
        )
        authority.cert_pem.write_to_path(str(files.ca))
        stranger.cert_pem.write_to_path(str(files.wrong_ca))
        pairs = (
            (
                authority.issue_cert("localhost", "127.0.0.1"),
                files.server_certificate,
                files.server_key,
            ),
            (
                authority.issue_cert("client.test", common_name="client"),
                files.client_certificate,
                files.client_key,
            ),
            (
                stranger.issue_cert("client.test", common_name="client"),
                files.wrong_client_certificate,
                files.wrong_client_key,
            ),
        )
        for issued, certificate, key in pairs:
            issued.cert_chain_pems[0].write_to_path(str(certificate))
            issued.private_key_pem.write_to_path(str(key))
            key.chmod(0o600)  # PostgreSQL refuses a key that others can read
        for pair, issued in (
            (files.client_pair, pairs[1][0]),
            (files.wrong_client_pair, pairs[2][0]),
        ):
            issued.private_key_and_cert_chain_pem.write_to_path(str(pair))
        return files
