"""Keys, signed mails, a name server and an authenticator with real parts."""

import base64
import functools
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import dkim
import nacl.signing
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from names import NameServer

from apptrack_ingest.trust import Authenticator, Connection, DnsResolver, Mail, Verifier

PEER = "193.0.14.129"
MAIL = (
    b"From: Jane Doe <jane@example.org>\r\nTo: jobs@customer.example\r\nSubject: Application  for\r\n\ta post\r\n"
    b"Date: Mon, 1 Jan 2024 10:00:00 +0000\r\nX-iTrackID: 33139609\r\nX-iTrackID-ClientID: 42\r\n"
    b"X-iTrackID-Title: Caf\xe9 manager\r\n\r\nDear all,\r\n\r\nplease find my CV.  \r\n\r\n\r\n"
)
IDS = [b"x-itrackid", b"x-itrackid-clientid", b"x-itrackid-title"]
SIGNED = [b"from", b"to", b"subject", *IDS]


@functools.cache
def rsa_key(name: str) -> tuple[bytes, bytes]:
    """A private key as PEM and its DNS record, made once for each name."""
    key = rsa.generate_private_key(65537, 2048)
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )
    public = key.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return pem, b"v=DKIM1; k=rsa; p=" + base64.b64encode(public)


@functools.cache
def ed25519_key() -> tuple[bytes, bytes]:
    key = nacl.signing.SigningKey.generate()
    record = b"v=DKIM1; k=ed25519; p=" + base64.b64encode(bytes(key.verify_key))
    return base64.b64encode(bytes(key)), record


class Signer:
    """Signs mails as idibu and as forwarders do."""

    mail, ids, signed, peer = MAIL, IDS, SIGNED, PEER

    def key(self, name: str = "k1") -> bytes:
        return rsa_key(name)[1]

    def weak_key(self) -> bytes:
        """A record of 1023 bits; no library makes such a key any more."""
        modulus = (2**1022 + 1).to_bytes(128)
        der = b"\x30\x81\x88\x02\x81\x80" + modulus + b"\x02\x03\x01\x00\x01"
        return b"v=DKIM1; k=rsa; p=" + base64.b64encode(der)

    def slow_key(self, bits=2048, exponent=2**2000 + 1) -> bytes:
        """A record of somebody's own choice of numbers."""

        def integer(number: int) -> bytes:
            octets = number.to_bytes(number.bit_length() // 8 + 1)
            return b"\x02\x82" + len(octets).to_bytes(2) + octets

        numbers = integer(2 ** (bits - 1) + 1) + integer(exponent)
        der = b"\x30\x82" + len(numbers).to_bytes(2) + numbers
        return b"v=DKIM1; k=rsa; p=" + base64.b64encode(der)

    def ed25519(self) -> bytes:
        return ed25519_key()[1]

    def sign(
        self, mail=MAIL, domain=b"idibu.com", selector=b"k1", key="k1", headers=SIGNED, form=b"relaxed/relaxed", **more
    ):
        canonicalize = tuple(form.split(b"/"))
        line = dkim.sign(
            mail, selector, domain, rsa_key(key)[0], include_headers=headers, canonicalize=canonicalize, **more
        )
        return line + mail

    def sign_ed25519(self, mail=MAIL):
        private = ed25519_key()[0]
        return (
            dkim.sign(mail, b"e1", b"idibu.com", private, signature_algorithm=b"ed25519-sha256", include_headers=SIGNED)
            + mail
        )

    def sign_by_hand(
        self, mail=MAIL, tags=b"", headers=SIGNED, key="k1", hasher=None, algorithm=b"rsa-sha256", digest=None
    ):
        """A signature with tags of our choice (x=, l= of our own ...), relaxed/relaxed, made of dkimpy's parts."""
        import hashlib

        from dkim.canonicalization import Relaxed
        from dkim.crypto import RSASSA_PKCS1_v1_5_sign, parse_pem_private_key

        hasher = hasher or hashlib.sha256
        head, _, body = mail.partition(b"\r\n\r\n")
        fields, _ = dkim.rfc822_parse(head + b"\r\n\r\n")
        digest = base64.b64encode(digest or hasher(Relaxed.canonicalize_body(body)).digest())
        value = b" v=1; a=" + algorithm + b"; c=relaxed/relaxed; d=idibu.com; s=k1;" + tags
        value += b" h=" + b":".join(headers) + b"; bh=" + digest + b"; b="
        hashed = dkim.HashThrough(hasher())
        canonical = Relaxed.canonicalize_headers(fields)
        dkim.hash_headers(hashed, Relaxed, canonical, headers, (b"DKIM-Signature", value), {})
        signature = RSASSA_PKCS1_v1_5_sign(hashed, parse_pem_private_key(rsa_key(key)[0]))
        return b"DKIM-Signature:" + value + base64.b64encode(signature) + b"\r\n" + mail

    def seal(self, mail, results, domain=b"forwarder.example", headers=SIGNED, key="arc"):
        """One more ARC set on top, with these authentication results."""
        marked = b"Authentication-Results: mx." + domain + b"; " + results + b"\r\n" + mail
        lines = dkim.arc_sign(marked, b"arc", domain, rsa_key(key)[0], b"mx." + domain, include_headers=headers)
        assert lines, "dkimpy did not seal"
        return b"".join(line if line.endswith(b"\n") else line + b"\r\n" for line in lines) + mail


@pytest.fixture(scope="session")
def signer() -> Signer:
    return Signer()


@pytest.fixture
async def nameserver(signer) -> AsyncIterator[NameServer]:
    zone = {
        "k1._domainkey.idibu.com": {"TXT": [signer.key()]},
        "e1._domainkey.idibu.com": {"TXT": [signer.ed25519()]},
        "arc._domainkey.forwarder.example": {"TXT": [signer.key("arc")]},
        "arc._domainkey.second.example": {"TXT": [signer.key("arc2")]},
    }
    async with NameServer(zone) as server:
        yield server


class Bench:
    """An authenticator over the test's name server, and one verifying process for the whole test."""

    def __init__(self, nameserver: NameServer, verifier: Verifier) -> None:
        self.nameserver = nameserver
        self.verifier = verifier
        self.time = time.time()
        self.timeout = 8.0
        self.dns_timeout = 2.0

    def authenticator(self, **more) -> Authenticator:
        resolver = DnsResolver([self.nameserver.address], timeout=self.dns_timeout)
        return Authenticator(
            resolver, self.verifier, clock=lambda: self.time, timeout=self.timeout, **{"spf": False, **more}
        )

    async def judge_all(self, raw, rules, *, address=PEER, sender="", tokens=None, spf=False, **connection):
        mail = Mail(Connection(address, **connection), sender, tokens or {}, raw)
        return await self.authenticator(spf=spf).judge(mail, rules)

    async def judge(self, raw, rules, **more):
        """The verdict for one account with one set of rules."""
        return (await self.judge_all(raw, {"acme": [rules]}, **more)).verdicts["acme"]


@asynccontextmanager
async def _verifier() -> AsyncIterator[Verifier]:
    verifier = Verifier()
    try:
        yield verifier
    finally:
        await verifier.close()


class _HereVerifier:
    """Verifies in this process: what is tested here is what is decided, not where."""

    def __init__(self) -> None:
        self.works = []

    async def check(self, work, network=""):
        from apptrack_ingest.trust.signatures import verify

        self.works.append(work)
        return verify(work)


@pytest.fixture
async def bench(nameserver) -> Bench:
    return Bench(nameserver, _HereVerifier())


@pytest.fixture
async def real_bench(nameserver) -> AsyncIterator[Bench]:
    async with _verifier() as verifier:
        yield Bench(nameserver, verifier)
