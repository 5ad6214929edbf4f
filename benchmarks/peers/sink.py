"""Postfix's smtp-sink: what SMTP costs when nothing is kept, the limit for all that keep."""

from peers import Peer, program


class Sink(Peer):
    name = "smtp-sink (keeps nothing)"
    durable = False

    def launch(self) -> None:
        # As root it would look for a user to become; without a file to write any will do.
        self.spawn(program("smtp-sink", "postfix"), "-u", "nobody", f"127.0.0.1:{self.port}", "200")
