"""Puts the replies that aiosmtpd gives by itself into the words of our table."""

import logging
from typing import Final

from apptrack_ingest.receive import policy
from apptrack_ingest.receive.policy import Reply

log = logging.getLogger("apptrack_ingest.receive")

# aiosmtpd's own replies, by how they begin (the first match counts), and what we say instead: its texts lack enhanced
# codes and some repeat what the peer sent.
INSTEAD_OF: Final[tuple[tuple[str, Reply], ...]] = (
    ("220 Ready to start TLS", policy.START_TLS),
    ("221 Bye", policy.BYE),
    ("250 OK", policy.OK),
    ("454 TLS not available", policy.TLS_UNAVAILABLE),
    ("500 Command line too long", policy.LINE_TOO_LONG),
    ("500 Error: bad syntax", policy.BAD_SYNTAX),
    ("500 Error: command ", policy.UNKNOWN_COMMAND),
    ("501 ", policy.BAD_ARGUMENTS),
    ("502 5.5.1 Too many unrecognized commands", policy.TOO_MANY_ERRORS),
    ("502 EXPN not implemented", policy.NOT_IMPLEMENTED),
    ("503 Error: send ", policy.HELO_FIRST),
    ("503 Error: nested MAIL command", policy.MAIL_TWICE),
    ("503 Error: need MAIL command", policy.MAIL_FIRST),
    ("552 Error: message size exceeds", policy.TOO_BIG),
    ("553 5.1.3 Error: malformed address", policy.BAD_ADDRESS),
    ("555 ", policy.UNKNOWN_PARAMETER),
)


def in_our_words(status: str) -> Reply:
    """Our reply for one of aiosmtpd's; one that nobody foresaw is a temporary fault and stays here."""
    for beginning, reply in INSTEAD_OF:
        if status.startswith(beginning):
            return reply
    log.error("unforeseen reply of the protocol: %s", status[:3])
    return policy.TRY_LATER
