"""An authority of the tests' own, and the certificates it issues, as files and as what clients trust."""

import itertools
import ssl
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import trustme


@dataclass(frozen=True)
class Identity:
    """A certificate and its key as PEM files."""

    certificate: Path
    key: Path

    @property
    def settings(self) -> str:
        """The lines of `[smtp]` for it."""
        return f'tls_certificate = "{self.certificate}"\ntls_key = "{self.key}"\n'

    @property
    def fingerprint(self) -> str:
        """SHA-256 in hex, as the settings take it."""
        return sha256(ssl.PEM_cert_to_DER_cert(self.certificate.read_text())).hexdigest()


class Certificates:
    """One authority. `file` holds its certificate."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._authority = trustme.CA()
        self._numbers = itertools.count(1)
        self.file = directory / "authority.pem"
        self._authority.cert_pem.write_to_path(self.file)

    def issue(self, *names: str, **more: object) -> Identity:
        """A certificate for these names."""
        made = self._authority.issue_cert(*names, **more)
        number = next(self._numbers)
        identity = Identity(self._directory / f"{number}.pem", self._directory / f"{number}.key")
        identity.certificate.write_bytes(b"".join(pem.bytes() for pem in made.cert_chain_pems))
        made.private_key_pem.write_to_path(identity.key)
        return identity

    def trusting(self) -> ssl.SSLContext:
        """What a client checks servers with."""
        return ssl.create_default_context(cafile=str(self.file))
