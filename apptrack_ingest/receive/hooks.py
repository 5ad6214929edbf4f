"""aiosmtpd's hooks where a decision of ours is asked for: MAIL and RCPT."""

# ruff: noqa: N802 - aiosmtpd finds them by these names

from typing import Any

from apptrack_ingest.receive import policy


class Decisions:
    """What aiosmtpd calls, by its names."""

    async def handle_MAIL(self, _server: Any, _session: Any, envelope: Any, address: str, options: list[str]) -> str:
        """Any sender will do; the null sender of a bounce stays `<>` until the envelope is made."""
        envelope.mail_from = address
        envelope.mail_options.extend(options)
        return policy.SENDER_OK.render()

    async def handle_RCPT(self, server: Any, _session: Any, _envelope: Any, address: str, _options: list[str]) -> str:
        """Only recipients of ours."""
        reply: str = server.taken(address).render()
        return reply
