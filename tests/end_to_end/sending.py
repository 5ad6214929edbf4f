"""Sends single mails by smtplib and gives the answers as they came; behind a load balancer, too."""

import smtplib
import socket

SENDER = "bounces@idibu.example"
RECIPIENT = "applications@acme.example"


class ByBalancer(smtplib.SMTP):
    """smtplib as a load balancer would bring it: a PROXY header (version 1) goes first, which names `client` (None: it
    knows nothing of whom it brings)."""

    def __init__(self, client: str | None, port: int) -> None:
        self._header = f"PROXY TCP4 {client} 127.0.0.1 50000 25\r\n" if client else "PROXY UNKNOWN\r\n"
        super().__init__("127.0.0.1", port, "client.example", timeout=60)

    def _get_socket(self, host: str, port: int, timeout: float) -> socket.socket:
        made = super()._get_socket(host, port, timeout)
        made.sendall(self._header.encode())
        return made


def answer(session: smtplib.SMTP, mail: bytes, *recipients: str, sender: str = SENDER) -> str:
    """The answer to a mail, whatever it is: the first that refuses something, or that to the end of DATA."""
    session.ehlo_or_helo_if_needed()
    steps = [lambda: session.mail(sender), *((lambda to=to: session.rcpt(to)) for to in recipients or (RECIPIENT,))]
    for step in (*steps, lambda: session.data(mail)):
        try:
            code, text = step()
        except smtplib.SMTPDataError as error:  # what is said to DATA itself
            code, text = error.smtp_code, error.smtp_error
        if code >= 400:
            if code != 421:
                session.rset()
            break
    return f"{code} {text.decode()}"
