"""aiosmtpd's hooks where a decision of ours is asked for: MAIL and RCPT."""

# ruff: noqa: N802 - aiosmtpd finds them by these names

from typing import Any

from apptrack_ingest.receive import policy
from apptrack_ingest.receive.reception import Reception


class Decisions:
    """What aiosmtpd calls, by its names."""

    def __init__(self, reception: Reception) -> None:
        self._reception = reception

    async def handle_MAIL(self, _server: Any, _session: Any, envelope: Any, address: str, options: list[str]) -> str:
        """Any sender will do; the null sender of a bounce stays `<>` until the envelope is made."""
        envelope.mail_from = address
        envelope.mail_options.extend(options)
        return policy.SENDER_OK.render()

    async def handle_RCPT(self, server: Any, _session: Any, envelope: Any, address: str, _options: list[str]) -> str:
        """Only recipients of ours."""
        reply = self._reception.recipient(address, server.connection, len(envelope.rcpt_tos))
        if reply is policy.RECIPIENT_OK:
            envelope.rcpt_tos.append(address)
        return reply.render()
