"""A mail attached to another one is judged by the DKIM rules in force, with real signatures and a real name server."""

import base64

import dkim
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from names import NameServer, Trouble

from apptrack_ingest.service.working import InnerJudge
from apptrack_ingest.settings import Account, Dns, Rules, Settings, Trust
from apptrack_ingest.testing import an_email
from apptrack_ingest.trust import Rule


@pytest.fixture(scope="module")
def key() -> tuple[bytes, bytes]:
    """A private key and its DNS record."""
    made = rsa.generate_private_key(65537, 2048)
    form = serialization.PrivateFormat.TraditionalOpenSSL
    private = made.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())
    public = made.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return private, b"v=DKIM1; k=rsa; p=" + base64.b64encode(public)


@pytest.fixture
def signed(key) -> bytes:
    mail = an_email(7)
    names = {
        line.partition(b":")[0].lower() for line in mail.partition(b"\r\n\r\n")[0].split(b"\r\n") if line[:1].isalpha()
    }
    covered = [b"from", b"subject", *sorted(name for name in names if name.startswith(b"x-itrackid"))]
    return dkim.sign(mail, b"k1", b"idibu.com", key[0], include_headers=covered) + mail


def settings(server: NameServer, dkim: tuple[str, ...] = ("idibu.com",)) -> Settings:
    account = Account(recipients=("a@acme.example",), trust=Rules(dkim=dkim))
    return Settings(dns=Dns(nameservers=(server.address,), timeout=1.0), trust=Trust(), accounts={"acme": account})


async def test_by_its_own_signature_and_by_nothing_else(key, signed):
    async with NameServer({"k1._domainkey.idibu.com": {"TXT": [key[1]]}}) as server:
        judge = InnerJudge(settings(server))
        try:
            assert (await judge("acme", signed)).rule is Rule.DKIM
            assert (await judge("acme", signed.replace(b"X-iTrackID: 7", b"X-iTrackID: 8"))).rule is Rule.NONE
            # Loopback is trusted for mail that comes from there; an attached mail comes from nowhere.
            assert (await judge("acme", an_email(7))).rule is Rule.NONE
            assert (await judge(None, signed)).rule is Rule.NONE
            judge.configure(settings(server, ("other.example",)))
            assert (await judge("acme", signed)).rule is Rule.NONE
        finally:
            await judge.close()


async def test_without_an_answer_it_is_undecided(signed):
    async with NameServer({"k1._domainkey.idibu.com": Trouble.SERVFAIL}) as server:
        judge = InnerJudge(settings(server))
        try:
            assert (await judge("acme", signed)).rule is Rule.UNDECIDED
        finally:
            await judge.close()
