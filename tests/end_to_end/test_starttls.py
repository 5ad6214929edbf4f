"""STARTTLS by a real client against real processes, with bulk DATA after it; it leans on private asyncio classes."""

import smtplib
import ssl

import trustme

from apptrack_ingest.testing import a_document, an_email


def test_starttls_and_then_a_large_mail(deployment, tmp_path, wait):
    authority = trustme.CA()
    certificate = authority.issue_cert("localhost")
    certificate.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    certificate.private_key_pem.write_to_path(tmp_path / "key.pem")
    deployment.configure()
    text = deployment.config.read_text()
    lines = f'tls_certificate = "{tmp_path / "cert.pem"}"\ntls_key = "{tmp_path / "key.pem"}"\n'
    deployment.config.write_text(text.replace("[smtp]\n", "[smtp]\n" + lines))
    server = deployment.start()
    deployment.up(server)
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    mail = an_email(1, documents=[a_document(content=b"%PDF-1.4 " + bytes(range(256)) * 8000)])
    with smtplib.SMTP("localhost", deployment.port, timeout=60) as session:
        session.ehlo("client.example")
        assert session.has_extn("starttls")
        session.starttls(context=trusting)
        session.ehlo("client.example")
        assert not session.has_extn("starttls")
        session.sendmail("a@b.example", ["applications@acme.example"], mail)
        session.sendmail("a@b.example", ["applications@acme.example"], an_email(2))
    wait(lambda: deployment.states() == {"delivered": 2}, why=deployment.log.read_text)
    assert deployment.candidates()[1]["documents"][0]["size"] == 9 + 256 * 8000
