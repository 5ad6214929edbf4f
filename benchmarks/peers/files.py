"""aiosmtpd as its documentation shows it, with a file and an fsync for each mail."""

import sys
from pathlib import Path

from peers import Peer

SERVER = """
import asyncio, os, sys, uuid
from aiosmtpd.smtp import SMTP

class Files:
    async def handle_DATA(self, server, session, envelope):
        await asyncio.to_thread(keep, envelope.content)
        return "250 OK"

def keep(content):
    name = os.path.join(sys.argv[2], uuid.uuid4().hex)
    with open(name + ".tmp", "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.rename(name + ".tmp", name)
    directory = os.open(sys.argv[2], os.O_RDONLY)
    os.fsync(directory)
    os.close(directory)

async def main():
    loop = asyncio.get_running_loop()
    # The name is given, or it would be looked up for each connection.
    server = await loop.create_server(lambda: SMTP(Files(), hostname="mx.bench.example"), "127.0.0.1", int(sys.argv[1]))
    await server.serve_forever()

asyncio.run(main())
"""


class Files(Peer):
    name = "aiosmtpd, file + fsync"

    def launch(self) -> None:
        script, self.mails = self.home / "server.py", self.home / "mails"
        script.write_text(SERVER)
        self.mails.mkdir()
        self.spawn(sys.executable, script, str(self.port), self.mails)

    mails = Path()

    def kept(self) -> int | None:
        return sum(1 for path in self.mails.iterdir() if path.suffix != ".tmp")
