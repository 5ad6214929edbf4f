"""TLS in all its modes, certificates that are renewed under way, and those of clients."""

import asyncio
import contextlib
import datetime
import hashlib
import logging
import ssl

import aiosmtplib
import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from apptrack_ingest.receive.listener import Entry, listening_sockets
from apptrack_ingest.receive.rates import Limit
from apptrack_ingest.receive.tls import expiry

REQUIRED = "530 5.7.0 Must issue a STARTTLS command first"


# --- modes --------------------------------------------------------------------------------------------------------


async def test_off_offers_nothing_though_there_is_a_certificate(make_intake, identity):
    client = await (await make_intake(tls=identity.tls(), entry=Entry(tls="off"))).connect()
    assert "STARTTLS" not in await client.say("EHLO x")
    assert (await client.say("STARTTLS")).startswith("454 4.7.0")


async def test_starttls_is_offered_and_not_demanded(make_intake, identity, mail):
    client = await (await make_intake(tls=identity.tls())).connect()
    assert "250-STARTTLS" in (await client.say("EHLO x")).splitlines()
    assert (await client.deliver(mail)).startswith("250")


@pytest.mark.parametrize(
    ("command", "reply"),
    [
        ("EHLO x", "250-"),
        ("HELO x", "250 mx"),
        ("NOOP", "250 2.0.0"),
        ("RSET", "250 2.0.0"),
        ("HELP", "214 "),
        ("QUIT", "221 "),
        ("MAIL FROM:<>", REQUIRED),
        ("mail from:<>", REQUIRED),
        ("RCPT TO:<postmaster>", REQUIRED),
        ("DATA", REQUIRED),
        ("VRFY x", REQUIRED),
        ("EXPN x", REQUIRED),
        ("AUTH PLAIN AGEAYg==", REQUIRED),
        ("FOO", "500 5.5.1"),
    ],
)
async def test_required_lets_nothing_pass_in_the_clear(make_intake, identity, command, reply):
    client = await (await make_intake(tls=identity.tls(), entry=Entry(tls="required"))).connect()
    await client.say("EHLO x")
    assert (await client.say(command)).startswith(reply)


async def test_required_takes_mail_under_tls(make_intake, identity, client_tls, mail):
    intake = await make_intake(tls=identity.tls(), entry=Entry(tls="required"))
    client = await intake.connect_tls(client_tls)
    assert (await client.deliver(mail)).startswith("250")


async def test_implicit_tls(make_intake, identity, client_tls):
    intake = await make_intake(tls=identity.tls(), entry=Entry(tls="implicit"))
    client = await intake.connect(ssl=client_tls)
    lines = (await client.say("EHLO client.example")).splitlines()
    assert not any("STARTTLS" in line for line in lines)
    assert await client.say("STARTTLS") == "503 5.5.1 TLS is active already"
    await client.transaction()
    big = b"A: b\r\n\r\n" + b"0123456789\r\n..dots\r\n" * 100_000
    client.send(big + b".\r\nQUIT\r\n")
    assert (await client.reply()).startswith("250 2.6.0")
    assert await client.reply() == "221 2.0.0 Bye"
    assert intake.spool.body == big.replace(b"\r\n..", b"\r\n.")
    assert b" with ESMTPS id " in intake.spool.message.raw


async def test_a_real_client_by_implicit_tls(make_intake, identity, client_tls, mail):
    intake = await make_intake(tls=identity.tls(), entry=Entry(tls="implicit"))
    options = {"hostname": "127.0.0.1", "port": intake.port, "use_tls": True, "tls_context": client_tls, "timeout": 10}
    async with aiosmtplib.SMTP(**options) as server:
        await server.sendmail("ann@example.org", ["jobs@north.example"], mail)
    assert intake.spool.body == mail


async def test_a_client_that_does_not_wait_for_the_greeting(make_intake, identity, client_tls, mail):
    intake = await make_intake(tls=identity.tls(), entry=Entry(tls="implicit"))
    start = b"HELO x\r\nMAIL FROM:<>\r\nRCPT TO:<jobs@north.example>\r\nDATA\r\n"
    client = await intake.connect(start + mail + b".\r\nQUIT\r\n", ssl=client_tls)
    assert [(await client.reply())[:3] for _ in range(6)] == ["250", "250", "250", "354", "250", "221"]
    assert await client.ended()
    assert intake.spool.body == mail


async def test_clients_that_come_and_go_under_implicit_tls_leave_nothing(make_intake, identity, client_tls):
    """They go within the same turn of the loop in which their handshake ends, or a few turns later."""
    intake = await make_intake(tls=identity.tls(), entry=Entry(tls="implicit"))
    for turns in range(12):
        client = await intake.knock(b"EHLO x\r\n" * turns, ssl=client_tls)
        for _ in range(turns):
            await asyncio.sleep(0)
        client.reset() if turns % 2 else client.writer.close()
    await intake.sessions_over(opened=12)


@pytest.mark.parametrize("way", ["plain", "gone", "silent", "reset"])
async def test_a_handshake_that_fails_ends_the_connection_quietly(make_intake, identity, way, caplog):
    intake = await make_intake(tls=identity.tls(), entry=Entry(tls="implicit"), idle_timeout=0.2)
    client = await intake.knock(b"EHLO client.example\r\n" if way == "plain" else b"")
    if way == "gone":
        client.writer.close()
    elif way == "reset":
        client.reset()
    await intake.sessions_over(opened=1)
    assert intake.replies == []
    assert not [record for record in caplog.records if record.levelno > logging.INFO]
    assert "Traceback" not in caplog.text


@pytest.mark.parametrize("mode", ["starttls", "implicit"])
async def test_handshakes_that_fail_are_counted_and_logged_without_a_flood(make_intake, identity, mode, caplog):
    caplog.set_level(logging.INFO)
    intake = await make_intake(tls=identity.tls(), entry=Entry(tls=mode))
    for number in range(4):
        client = await intake.knock()
        if mode == "starttls":
            await client.reply()
            await client.say("EHLO x")
            assert await client.say("STARTTLS") == "220 2.0.0 Ready to start TLS"
        client.send(b"this is no handshake at all\r\n")
        await intake.sessions_over(number + 1)
    assert intake.limited == [Limit.TLS_HANDSHAKE] * 4
    (line,) = [record for record in caplog.records if record.name.startswith("apptrack")]
    assert "tls handshake failed" in line.getMessage() and "127.0.0.1" in line.getMessage()


async def test_tls_spoken_to_the_plain_port_ends_quickly(make_intake, identity, client_tls):
    intake = await make_intake(tls=identity.tls())
    with pytest.raises(ssl.SSLError):
        await asyncio.wait_for(intake.knock(ssl=client_tls), 10)
    await intake.sessions_over()


async def test_drain_does_not_wait_for_a_handshake(make_intake, identity):
    intake = await make_intake(tls=identity.tls(), entry=Entry(tls="implicit"))
    client = await intake.knock()
    await intake.sessions_open()
    assert await intake.listener.drain(10) == 0
    assert await client.ended()


async def test_drain_tells_a_session_under_implicit_tls(make_intake, identity, client_tls):
    intake = await make_intake(tls=identity.tls(), entry=Entry(tls="implicit"))
    client = await intake.connect(ssl=client_tls)
    draining = asyncio.create_task(intake.listener.drain(10))
    assert await client.reply() == "421 4.3.2 Shutting down, try again later"
    assert await client.ended()
    assert await draining == 0


@pytest.mark.parametrize("mode", ["required", "implicit"])
async def test_tls_cannot_be_demanded_without_a_certificate(intake, mode):
    (sock,) = listening_sockets("127.0.0.1", 0)
    with pytest.raises(ValueError, match="needs a certificate"):
        await intake.listener.serve(sock, Entry(tls=mode))


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
async def test_old_tls_is_not_spoken(make_intake, identity, client_tls):
    intake = await make_intake(tls=identity.tls(), entry=Entry(tls="implicit"))
    assert identity.tls().context.minimum_version is ssl.TLSVersion.TLSv1_2
    client_tls.set_ciphers("ALL:@SECLEVEL=0")
    client_tls.minimum_version = ssl.TLSVersion.TLSv1
    client_tls.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises((ssl.SSLError, ConnectionResetError)):
        await intake.knock(ssl=client_tls)


# --- renewal ------------------------------------------------------------------------------------------------------


async def shown(intake, client_tls) -> bytes:
    """The certificate that a new connection is shown."""
    client = await intake.connect_tls(client_tls)
    return client.writer.get_extra_info("ssl_object").getpeercert(binary_form=True)


async def test_a_renewed_certificate_is_used_without_a_restart(make_intake, identity, client_tls):
    intake = await make_intake(tls=identity.tls())
    first = await shown(intake, client_tls)
    identity.renew()
    assert await shown(intake, client_tls) == first
    identity.now += 1
    assert await shown(intake, client_tls) != first
    assert identity.problems == []


async def test_a_renewal_half_done_changes_nothing_and_is_told_once(make_intake, identity, client_tls):
    intake = await make_intake(tls=identity.tls())
    first = await shown(intake, client_tls)
    identity.renew(key=False)
    for _ in range(3):
        identity.now += 2
        assert await shown(intake, client_tls) == first
    assert len(identity.problems) == 1
    assert "the key is not this certificate's" in identity.problems[0]
    identity.renew()
    identity.now += 2
    assert await shown(intake, client_tls) != first
    assert len(identity.problems) == 1


@pytest.mark.parametrize("break_it", ["empty", "garbage", "missing", "cut"])
def test_files_that_cannot_be_used_are_told_in_words_and_not_used(identity, break_it):
    tls = identity.tls()
    before = tls.context, tls.expires_at
    whole = identity.certificate.read_bytes()
    if break_it == "missing":
        identity.certificate.unlink()
    else:
        identity.certificate.write_bytes({"empty": b"", "garbage": b"\xff\x00" * 50, "cut": whole[:400]}[break_it])
    identity.now += 1
    tls.refresh()
    assert (tls.context, tls.expires_at) == before
    (problem,) = identity.problems
    assert problem.startswith(f"the certificate before stays in use: {identity.certificate}: ")
    identity.certificate.write_bytes(whole)
    identity.now += 1
    tls.refresh()
    assert tls.context is not before[0]


def test_what_was_wrong_beside_the_files_is_tried_again(identity, monkeypatch):
    tls = identity.tls()
    identity.renew()
    monkeypatch.setattr(ssl.SSLContext, "load_cert_chain", _no_file_handle_left)
    identity.now += 1
    tls.refresh()
    monkeypatch.undo()
    before = tls.context
    identity.now += 1
    tls.refresh()
    assert tls.context is not before
    assert len(identity.problems) == 1


def _no_file_handle_left(*_, **__):
    raise OSError(24, "Too many open files")


def test_the_files_are_looked_at_once_a_second_and_when_the_clock_was_set_back(identity):
    tls = identity.tls()
    before = tls.context
    identity.renew()
    identity.now += 0.9
    tls.refresh()
    assert tls.context is before
    identity.now -= 3600
    assert tls.current() is not before


def test_a_start_without_usable_files_fails_in_words(identity, tmp_path):
    identity.renew(key=False)
    with pytest.raises(ValueError, match=r"cert\.pem: the key is not this certificate's"):
        identity.tls()
    identity.key = tmp_path / "none.pem"
    with pytest.raises(ValueError, match="No such file"):
        identity.tls()


def test_an_encrypted_key_is_refused_and_never_asked_about(identity):
    key = serialization.load_pem_private_key(identity.key.read_bytes(), None)
    locked = serialization.BestAvailableEncryption(b"secret")
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, locked)
    identity.key.write_bytes(pem)
    with pytest.raises(ValueError, match="cannot be read"):
        identity.tls()


@pytest.mark.parametrize("year", [2029, 2049, 2050, 2999])
def test_the_expiry_is_the_certificates_own(identity, year):
    until = datetime.datetime(year, 5, 17, 12, 34, 56, tzinfo=datetime.UTC)
    identity.renew(not_after=until)
    assert identity.tls().expires_at == until.timestamp()


def test_an_expired_certificate_has_an_expiry_too(identity):
    until = datetime.datetime(2001, 1, 2, tzinfo=datetime.UTC)
    identity.renew(not_before=datetime.datetime(2000, 1, 1, tzinfo=datetime.UTC), not_after=until)
    assert identity.tls().expires_at == until.timestamp()


@pytest.mark.parametrize("pem", ["", "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n"])
def test_no_certificate_has_no_expiry(pem):
    with pytest.raises(ValueError, match="certificate"):
        expiry(pem)


# --- certificates of clients --------------------------------------------------------------------------------------


def by_authority(client_tls, authority: trustme.CA) -> str:
    made = authority.issue_cert("client.example", "other.example", common_name="Mail Client")
    made.configure_cert(client_tls)
    return _fingerprint(x509.load_pem_x509_certificate(made.cert_chain_pems[0].bytes()))


def _fingerprint(certificate: x509.Certificate) -> str:
    return hashlib.sha256(certificate.public_bytes(serialization.Encoding.DER)).hexdigest()


def self_signed(client_tls, directory) -> str:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "self.example")])
    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    made = (
        builder.not_valid_before(now - datetime.timedelta(1))
        .not_valid_after(now + datetime.timedelta(1))
        .sign(key, hashes.SHA256())
    )
    pem = made.public_bytes(serialization.Encoding.PEM)
    (directory / "self.pem").write_bytes(pem)
    locked = serialization.NoEncryption()
    private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, locked)
    (directory / "self-both.pem").write_bytes(private + pem)
    client_tls.load_cert_chain(directory / "self-both.pem")
    return _fingerprint(made)


@pytest.fixture
def client_ca(tmp_path):
    """Another authority than the server's own, and the file that holds it."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "clients.pem")
    return authority, tmp_path / "clients.pem"


@pytest.mark.parametrize("mode", ["starttls", "implicit"])
async def test_a_client_certificate_by_its_authority(make_intake, identity, client_tls, client_ca, mail, mode):
    authority, file = client_ca
    fingerprint = by_authority(client_tls, authority)
    entry = Entry(tls=mode, identity=identity.tls(client_ca=file))
    intake = await make_intake(entry=entry)
    client = await (intake.connect_tls(client_tls) if mode == "starttls" else intake.connect(ssl=client_tls))
    assert (await client.deliver(mail)).startswith("250")
    certificate = intake.judge.connection.certificate
    assert certificate.fingerprint == fingerprint
    assert certificate.names == ("mail client", "client.example", "other.example")


async def test_a_self_signed_client_certificate_that_is_listed_itself(
    make_intake, identity, client_tls, tmp_path, mail
):
    fingerprint = self_signed(client_tls, tmp_path)
    intake = await make_intake(tls=identity.tls(client_ca=tmp_path / "self.pem"))
    client = await intake.connect_tls(client_tls)
    assert (await client.deliver(mail)).startswith("250")
    assert intake.judge.connection.certificate.fingerprint == fingerprint
    assert intake.judge.connection.certificate.names == ("self.example",)


async def test_a_client_without_a_certificate_passes_where_one_could_be_shown(
    make_intake, identity, client_tls, client_ca, mail
):
    intake = await make_intake(tls=identity.tls(client_ca=client_ca[1]))
    client = await intake.connect_tls(client_tls)
    assert (await client.deliver(mail)).startswith("250")
    assert intake.judge.connection.certificate is None


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_a_foreign_client_certificate_fails_where_one_is_asked_for(
    make_intake, identity, client_tls, client_ca, version
):
    intake = await make_intake(entry=Entry(tls="implicit"), tls=identity.tls(client_ca=client_ca[1]))
    client_tls.maximum_version = version
    by_authority(client_tls, trustme.CA())
    greeting = ""
    with contextlib.suppress(
        ssl.SSLError, ConnectionResetError
    ):  # in TLS 1.3 the client learns of it later, or not at all
        greeting = await (await intake.knock(ssl=client_tls)).reply()
    assert greeting == ""
    await intake.sessions_over()
    assert intake.replies == []


async def test_a_client_certificate_is_nothing_where_none_is_asked_for(make_intake, identity, client_tls, mail):
    by_authority(client_tls, trustme.CA())
    intake = await make_intake(tls=identity.tls())
    client = await intake.connect_tls(client_tls)
    assert (await client.deliver(mail)).startswith("250")
    assert intake.judge.connection.certificate is None


async def test_an_authority_that_is_renewed_counts_at_once(make_intake, identity, client_tls, client_ca, mail):
    _, file = client_ca
    intake = await make_intake(tls=identity.tls(client_ca=file))
    new = trustme.CA()
    fingerprint = by_authority(client_tls, new)
    new.cert_pem.write_to_path(file)
    identity.now += 1
    client = await intake.connect_tls(client_tls)
    assert (await client.deliver(mail)).startswith("250")
    assert intake.judge.connection.certificate.fingerprint == fingerprint
