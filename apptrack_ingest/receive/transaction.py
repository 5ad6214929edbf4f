"""MAIL and RCPT as nearly every client says them, without aiosmtpd's way through all that may be said."""

# ruff: noqa: N802 - aiosmtpd finds commands by names like smtp_MAIL

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
    """A dialogue whose plain MAIL and RCPT are short; aiosmtpd sees to all others, and to all that is out of order."""

    async def smtp_MAIL(self, arg: str | None) -> None:
        """RFC 5321, 4.1.1.2; any sender will do."""
        plain = _PLAIN_MAIL.fullmatch(arg or "") if self.session.extended_smtp and self.session.host_name else None
        if plain is None or self.envelope.mail_from or int(plain[3] or 0) > (self.data_size_limit or 0):
            await super().smtp_MAIL(arg)
            return
        self.envelope.smtp_utf8 = False
        self.envelope.mail_from = plain[1]
        self.envelope.mail_options.extend(plain[2].upper().split())
        self._answer(policy.SENDER_OK)

    async def smtp_RCPT(self, arg: str | None) -> None:
        """RFC 5321, 4.1.1.3; only recipients of ours."""
        plain = _PLAIN_RCPT.fullmatch(arg or "")
        if plain is None or not self.envelope.mail_from:
            await super().smtp_RCPT(arg)
            return
        self._answer(self.taken(plain[1]))

    def taken(self, recipient: str) -> Reply:
        """The answer to a recipient, who is in the envelope from now on if it is yes."""
        reply = self._host.reception.recipient(recipient, self.connection, len(self.envelope.rcpt_tos))
        if reply is policy.RECIPIENT_OK:
            self.envelope.rcpt_tos.append(recipient)
        return reply
