"""The commands as nearly every client says them, without aiosmtpd's way through all that may be said."""

# ruff: noqa: N802 - commands are found by names like said_MAIL

import re
from typing import Final

from apptrack_ingest.receive import policy
from apptrack_ingest.receive.dialogue import Dialogue
from apptrack_ingest.receive.policy import Reply

# An address that `policy.parse_path` takes as it stands: dot-atoms (RFC 5322, 3.2.3) and a host name.
_PLAIN: Final = r"<([A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]+@[A-Za-z0-9.-]+)>"
_PLAIN_MAIL: Final = re.compile(rf"(?i)FROM:{_PLAIN}((?: SIZE=([0-9]{{1,15}}))?(?: BODY=(?:7BIT|8BITMIME))?)")
_PLAIN_RCPT: Final = re.compile(rf"(?i)TO:{_PLAIN}")


class Transaction(Dialogue):
    """A dialogue whose plain commands are short; aiosmtpd sees to all others, and to all that is out of order."""

    _greeting: Reply
    _hello: Reply

    def said_HELO(self, arg: str | None) -> bool:
        """RFC 5321, 4.1.1.1."""
        if not arg:
            return False
        self._set_rset_state()  # type: ignore[no-untyped-call]
        self.session.extended_smtp = False
        self.session.host_name = arg
        self._write(self._hello)
        return True

    def said_MAIL(self, arg: str | None) -> bool:
        """RFC 5321, 4.1.1.2; any sender will do."""
        plain = _PLAIN_MAIL.fullmatch(arg or "")
        session, envelope = self.session, self.envelope
        if plain is None or not session.host_name or envelope.mail_from:
            return False
        if plain[2] and (not session.extended_smtp or int(plain[3] or 0) > (self.data_size_limit or 0)):
            return False
        envelope.smtp_utf8 = False
        envelope.mail_from = plain[1]
        if plain[2]:
            envelope.mail_options.extend(plain[2].upper().split())
        self._write(policy.SENDER_OK)
        return True

    def said_RCPT(self, arg: str | None) -> bool:
        """RFC 5321, 4.1.1.3; only recipients of ours."""
        plain = _PLAIN_RCPT.fullmatch(arg or "")
        if plain is None or not self.envelope.mail_from:
            return False
        self._answer(self.taken(plain[1]))
        return True

    def said_QUIT(self, arg: str | None) -> bool:
        """RFC 5321, 4.1.1.10."""
        if arg:
            self._write(policy.BAD_ARGUMENTS)
        else:
            self._write(policy.BYE)
            self.transport.close()
        return True

    def taken(self, recipient: str) -> Reply:
        """The answer to a recipient, who is in the envelope from now on if it is yes."""
        reply = self._host.reception.recipient(recipient, self._believed_address, len(self.envelope.rcpt_tos))
        if reply is policy.RECIPIENT_OK:
            self.envelope.rcpt_tos.append(recipient)
        return reply
