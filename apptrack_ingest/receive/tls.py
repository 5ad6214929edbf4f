"""Holds a certificate for TLS: read anew when its files change, and what clients prove by certificates of their own."""

import asyncio
import re
import ssl
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any, Final, cast

from apptrack_ingest.trust import Certificate

LOOK_EVERY: Final = 1.0
"""Seconds between two looks at the files."""

Signature = tuple[tuple[int, ...] | None, ...]


def beneath(transport: asyncio.Transport) -> asyncio.Transport:
    """A connection as asyncio's TLS (`asyncio.sslproto`) wants it to be under it, whatever the loop."""
    return cast(asyncio.Transport, _Beneath(transport))


class _Beneath:
    """One of uvloop's raises RuntimeError where asyncio's would do nothing, because it is gone already, and has no
    `_force_close`."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """As `asyncio.WriteTransport.write`; nothing once it is gone."""
        if not self._transport.is_closing():
            self._transport.write(data)

    def pause_reading(self) -> None:
        """As `asyncio.ReadTransport.pause_reading`; nothing once it is gone."""
        if not self._transport.is_closing():
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        """As `asyncio.ReadTransport.resume_reading`; nothing once it is gone."""
        if not self._transport.is_closing():
            self._transport.resume_reading()

    def _force_close(self, error: BaseException | None) -> None:
        self._transport.abort()


class Tls:
    """Our certificate and key, TLS 1.2 and up. One context serves all connections until the files change; then a new
    one takes its place, made whole first: a renewal that is half done changes nothing, and is told once per change.

    With `client_ca`, clients are asked for a certificate. One that these authorities (or the file itself: a self-signed
    one may stand in it) do not vouch for fails the handshake, as Python's ssl cannot let it pass; none at all is fine.
    `clock` gives epoch seconds; `on_problem` gets a sentence for people. ValueError, in words, when the files cannot be
    used at the start.
    """

    def __init__(
        self,
        certificate: Path,
        key: Path,
        *,
        client_ca: Path | None = None,
        clock: Callable[[], float],
        on_problem: Callable[[str], None],
    ) -> None:
        self._certificate = certificate
        self._key = key
        self._client_ca = client_ca
        self._clock = clock
        self._on_problem = on_problem
        self._looked_at = clock()
        self._loaded = self._told = self._signature()
        self.context, self.expires_at = self._load()

    context: ssl.SSLContext
    """The context in use."""
    expires_at: float
    """When the certificate in use expires (its notAfter), in epoch seconds."""

    def current(self) -> ssl.SSLContext:
        """The context for a new connection, by the files as they are now."""
        self.refresh()
        return self.context

    def refresh(self) -> None:
        """Look whether the files changed (at most once a second), and use them if they are whole."""
        now = self._clock()
        if 0 <= now - self._looked_at < LOOK_EVERY:
            return
        self._looked_at = now
        found = self._signature()
        if found != self._loaded:
            self._reload(found)

    def _reload(self, found: Signature) -> None:
        try:
            self.context, self.expires_at = self._load()
        except ValueError as error:
            # Tried again at the next look: what was wrong may not have been the files (no file handle left, say).
            if found != self._told:
                self._on_problem(f"the certificate before stays in use: {error}")
            self._told = found
        else:
            self._loaded = self._told = found

    def _load(self) -> tuple[ssl.SSLContext, float]:
        try:
            context = _server_context(self._certificate, self._key, self._client_ca)
            return context, expiry(self._certificate.read_text("ascii", "replace"))
        except (OSError, ValueError) as error:
            raise ValueError(_in_words(error, self._certificate)) from None

    def _signature(self) -> Signature:
        """What tells one state of the files from another (a symbolic link counts by what it leads to)."""
        files = (self._certificate, self._key, self._client_ca)
        return tuple(_stamp(file) for file in files if file is not None)


def _stamp(file: Path) -> tuple[int, ...] | None:
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _server_context(certificate: Path, key: Path, client_ca: Path | None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION
    # A password, though an empty one: without it OpenSSL asks for that of an encrypted key on the terminal, and waits.
    context.load_cert_chain(certificate, key, password="")
    if client_ca is not None:
        context.verify_mode = ssl.CERT_OPTIONAL
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        context.load_verify_locations(client_ca)
    return context


def _in_words(error: Exception, certificate: Path) -> str:
    if isinstance(error, ssl.SSLError):
        if error.reason == "KEY_VALUES_MISMATCH":
            return f"{certificate}: the key is not this certificate's"
        return f"{certificate}: certificate, key or client CA cannot be read ({error.reason or 'no PEM'})"
    if isinstance(error, OSError):
        return f"{error.filename or certificate}: {error.strerror}"
    return f"{certificate}: {error}"


# --- the expiry of a certificate ----------------------------------------------------------------------------------

_PEM = re.compile("-----BEGIN (?:X509 )?CERTIFICATE-----(.+?)-----END", re.DOTALL)
_CONTEXT_0 = 0xA0
_UTC_TIME = 0x17


def expiry(pem: str) -> float:
    """The notAfter of the first certificate in a PEM text, in epoch seconds; ValueError when there is none.

    Read from the DER (RFC 5280, 4.1) because Python's ssl describes only certificates of peers, and authorities.
    """
    found = _PEM.search(pem)
    if found is None:
        raise ValueError("no certificate in the file")
    der = ssl.PEM_cert_to_DER_cert(f"{ssl.PEM_HEADER}{found[1]}{ssl.PEM_FOOTER}")
    try:
        return _not_after(der)
    except (IndexError, StopIteration):
        raise ValueError("the certificate cannot be read") from None


def _not_after(der: bytes) -> float:
    _, start, end = next(_elements(der, 0, len(der)))
    _, start, end = next(_elements(der, start, end))
    fields = list(_elements(der, start, end))
    # version [0] (absent in version 1), serial number, signature, issuer, validity
    _, start, end = fields[4 if fields[0][0] == _CONTEXT_0 else 3]
    tag, start, end = list(_elements(der, start, end))[1]
    text = der[start:end].decode("ascii")
    if tag == _UTC_TIME:
        text = ("20" if text < "50" else "19") + text
    return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC).timestamp()


def _elements(der: bytes, at: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Tag, start and end of the content of each element between two places."""
    while at < end:
        tag, size, at = der[at], der[at + 1], at + 2
        if size >= 0x80:
            count = size - 0x80
            size, at = int.from_bytes(der[at : at + count], "big"), at + count
        yield tag, at, at + size
        at += size


# --- certificates of clients --------------------------------------------------------------------------------------


def peer_certificate(tls: ssl.SSLObject | ssl.SSLSocket) -> Certificate | None:
    """The certificate that the peer proved to hold and our authorities vouch for; None where there is none."""
    der = tls.getpeercert(binary_form=True)
    if not der:
        return None
    return Certificate(sha256(der).hexdigest(), tuple(dict.fromkeys(_names(tls.getpeercert() or {}))))


def _names(described: Mapping[str, object]) -> Iterator[str]:
    """Common and DNS names in lower case, as Python's ssl describes a certificate."""
    subject: object = described.get("subject", ())
    for attributes in subject if isinstance(subject, tuple) else ():
        yield from (value.lower() for name, value in attributes if name == "commonName")
    alternatives: object = described.get("subjectAltName", ())
    for kind, value in alternatives if isinstance(alternatives, tuple) else ():
        if kind == "DNS":
            yield value.lower()
