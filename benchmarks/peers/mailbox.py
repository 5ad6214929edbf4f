"""aiosmtpd as it comes, started by its own command, with the one handler of its own that keeps mail."""

import sys
from pathlib import Path

from peers import Peer


class Mailbox(Peer):
    """A Maildir: the mail is read by the standard library, and written to a file that is synced; its directory is not. For
    each connection it asks for its host's full name, which takes nothing where /etc/hosts has it."""

    name = "aiosmtpd, its own Mailbox handler"

    mails = Path()

    def launch(self) -> None:
        self.mails = self.home / "mails"
        listen = f"127.0.0.1:{self.port}"
        self.spawn(sys.executable, "-m", "aiosmtpd", "-n", "-l", listen, "-c", "aiosmtpd.handlers.Mailbox", self.mails)

    def kept(self) -> int | None:
        return sum(1 for _ in (self.mails / "new").iterdir())
