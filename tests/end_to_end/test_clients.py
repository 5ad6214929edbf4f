"""The SMTP clients that programs use: smtplib, aiosmtplib, curl and openssl, at listeners of every kind."""

import asyncio
import smtplib
import subprocess
from email.message import EmailMessage

import aiosmtplib
import pytest
from end_to_end.doors import PASSWORD, USER
from end_to_end.programs import program
from end_to_end.sending import RECIPIENT, SENDER, answer

from apptrack_ingest.model import State
from apptrack_ingest.testing import a_document, an_email

OTHER = "x@other.example"


# --- smtplib ---------------------------------------------------------------------------------------------------------


def test_smtplib_sends_many_mails_in_one_session(doors, certificates):
    with smtplib.SMTP("localhost", doors.ports["required"], timeout=30) as session:
        with pytest.raises(smtplib.SMTPSenderRefused, match="Must issue a STARTTLS command first"):
            session.sendmail(SENDER, [RECIPIENT], an_email(1))
        session.starttls(context=certificates.trusting())
        session.login(USER, PASSWORD)
        replies = [answer(session, an_email(number)) for number in range(100, 110)]
        assert session.sendmail("", [RECIPIENT, "x@elsewhere.example"], an_email(110)) == {
            "x@elsewhere.example": (550, b"5.1.1 No such recipient here")
        }
    rows = [doors.deployment.application_of(reply) for reply in replies]
    assert [row.applicant_id for row in rows] == list(range(100, 110))
    assert all(doors.deployment.settled(reply).state is State.DELIVERED for reply in replies)
    assert set(range(100, 111)) - {row.applicant_id for row in doors.deployment.applications()} == set()


def test_smtplib_over_implicit_tls_with_a_mail_at_the_limit(doors, certificates):
    with smtplib.SMTP_SSL("localhost", doors.ports["implicit"], timeout=30, context=certificates.trusting()) as session:
        session.ehlo("client.example")
        room = int(session.esmtp_features["size"]) - 2000
        mail = an_email(120, documents=[a_document(content=b"%PDF-1.4 " + bytes(room * 7 // 10))])
        reply = answer(session, mail, OTHER)
        assert session.mail(SENDER, [f"size={room + 2001}"]) == (552, b"5.3.4 Message too big")
        session.rset()
        assert answer(session, mail + bytes(room // 2), OTHER) == "552 5.3.4 Message too big"
        assert answer(session, an_email(121), OTHER).startswith("250 2.6.0")
    row = doors.deployment.application_of(reply)
    assert doors.deployment.raw(row.message_id).endswith(mail)


# --- aiosmtplib ------------------------------------------------------------------------------------------------------


async def test_aiosmtplib_over_several_connections_at_once(doors, certificates):
    async def sends(first: int) -> list[str]:
        async with aiosmtplib.SMTP(
            hostname="localhost",
            port=doors.ports["users"],
            tls_context=certificates.trusting(),
            start_tls=True,
            timeout=30,
        ) as session:
            await session.login(USER, PASSWORD)
            sent = [await session.sendmail(SENDER, [RECIPIENT], an_email(first + more)) for more in range(5)]
            return [f"250 {text}" for _, text in sent]

    replies = await asyncio.gather(*(sends(first) for first in (200, 210, 220, 230)))
    rows = await asyncio.to_thread(
        lambda: [doors.deployment.application_of(reply) for several in replies for reply in several]
    )
    assert {row.applicant_id for row in rows} == {first + more for first in (200, 210, 220, 230) for more in range(5)}


async def test_aiosmtplib_with_international_addresses(doors, certificates):
    mail = EmailMessage()
    mail["From"], mail["To"] = "Jürgen Ø <jürgen@bücher.example>", "x@other.example"
    mail["X-iTrackID"], mail["Subject"] = "240", "Bewerbung – Ärztin"
    mail.set_content("Sehr geehrte Frau Müller, …")
    async with aiosmtplib.SMTP(
        hostname="localhost",
        port=doors.ports["implicit"],
        tls_context=certificates.trusting(),
        use_tls=True,
        timeout=30,
    ) as session:
        with pytest.raises(aiosmtplib.SMTPAuthenticationError) as refusal:
            await session.login(USER, "wrong")
        assert refusal.value.code == 535
        _, text = await session.send_message(mail, sender="jürgen@bücher.example")
    row = await asyncio.to_thread(doors.deployment.application_of, f"250 {text}")
    story, raw = await asyncio.to_thread(
        lambda: (doors.deployment.story(row.application_id), doors.deployment.raw(row.message_id))
    )
    assert story.sender == "jürgen@bücher.example" and " with UTF8SMTPS id " in raw[:300].decode()


# --- curl ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def curl(doors, certificates, tmp_path):
    """Sends an application to a URL of one of the doors; gives the end of the run and what was said."""
    command = program("curl")
    mail = tmp_path / "mail.eml"

    def send(url: str, *words: str, applicant: int, to: str = RECIPIENT) -> tuple[int, str]:
        mail.write_bytes(an_email(applicant))
        scheme, _, door = url.partition("://")
        where = [
            "--url",
            f"{scheme}://localhost:{doors.ports[door]}/client.example",
            "--cacert",
            str(certificates.file),
        ]
        what = ["--mail-from", SENDER, "--mail-rcpt", to, "--upload-file", str(mail)]
        run = subprocess.run(
            [command, "--silent", "--verbose", "--max-time", "30", *where, *what, *words],
            capture_output=True,
            text=True,
            timeout=60,
            stdin=subprocess.DEVNULL,
        )
        return run.returncode, run.stderr

    return send


LOGIN_DENIED, WEIRD_REPLY, SEND_ERROR = 67, 8, 55


@pytest.mark.parametrize("url", ["smtps://implicit", "smtp://starttls", "smtp://users"])
def test_curl_with_tls_and_a_login(doors, curl, url):
    secured = [] if url.startswith("smtps") else ["--ssl-reqd"]
    code, said = curl(url, *secured, "--user", f"{USER}:{PASSWORD}", applicant=300)
    assert code == 0, said
    [line] = [line for line in said.splitlines() if "2.6.0" in line]
    row = doors.deployment.application_of(line.removeprefix("< "))
    assert doors.deployment.story(row.application_id).trust_note == f"logged in as the listed user {USER}"
    code, said = curl(url, *secured, "--user", f"{USER}:wrong", applicant=301)
    assert code == LOGIN_DENIED and "< 535 5.7.8 Authentication credentials invalid" in said


def test_curl_in_the_clear(doors, curl):
    code, said = curl("smtp://off", applicant=310, to=OTHER)
    assert code == 0 and "250 2.6.0 Queued as" in said
    code, said = curl("smtp://off", applicant=311, to="x@elsewhere.example")
    assert code == SEND_ERROR and "550 5.1.1 No such recipient here" in said
    code, said = curl("smtp://required", applicant=312)
    assert code == SEND_ERROR and "530 5.7.0 Must issue a STARTTLS command first" in said


# --- openssl ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("door", "starttls"), [("starttls", ["-starttls", "smtp"]), ("implicit", [])])
def test_only_tls_from_1_2_on_is_spoken(doors, certificates, wait, door, starttls):
    def handshake(version: str) -> str:
        where = ["-connect", f"127.0.0.1:{doors.ports[door]}", *starttls, "-CAfile", str(certificates.file)]
        # Without this openssl itself would not even try what it thinks too old.
        how = [version, "-cipher", "ALL:@SECLEVEL=0", "-verify_return_error"]
        run = subprocess.run(
            [program("openssl"), "s_client", *where, *how],
            input="QUIT\r\n",
            capture_output=True,
            text=True,
            timeout=30,
        )
        return run.stdout + run.stderr

    for version in ("-tls1", "-tls1_1"):
        # The server hung up upon the client's hello; asyncio does not send the alert that would say why.
        assert "unexpected eof while reading" in (said := handshake(version)) and "Cipher is (NONE)" in said
    for version, name in (("-tls1_2", "TLSv1.2"), ("-tls1_3", "TLSv1.3")):
        assert f"New, {name}, Cipher is" in handshake(version)
    wait(lambda: doors.deployment.metric("apptrack_smtp_sessions") == 0)
