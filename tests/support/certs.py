"""Certificates: one throw-away authority a test run, and servers with good and bad certificates."""

from __future__ import annotations

import datetime
import ssl
from pathlib import Path

import trustme


class Authority:
    """Owns a CA; `bundle` is its PEM file, for SSL_CERT_FILE."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.ca = trustme.CA()
        self.bundle = folder / "ca.pem"
        self.ca.cert_pem.write_to_path(str(self.bundle))

    def issue(self, *names: str, expired: bool = False) -> trustme.LeafCert:
        past = datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(days=1)
        return self.ca.issue_cert(*names, not_after=past) if expired else self.ca.issue_cert(*names)

    def write(self, *names: str, stem: str = "server") -> tuple[Path, Path]:
        """Certificate chain and key as two PEM files."""
        leaf = self.issue(*names)
        cert, key = self.folder / f"{stem}.crt", self.folder / f"{stem}.key"
        cert.write_bytes(b"".join(pem.bytes() for pem in leaf.cert_chain_pems))
        leaf.private_key_pem.write_to_path(str(key))
        key.chmod(0o600)
        return cert, key

    def server_context(self, *names: str, expired: bool = False) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.issue(*(names or ("localhost", "127.0.0.1")), expired=expired).configure_cert(context)
        context.set_alpn_protocols(["http/1.1"])
        return context

    def client_context(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.bundle))
