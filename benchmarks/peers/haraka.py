"""Haraka (Node.js) with a queue plugin that writes a file and syncs it for each mail."""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from peers import Missing, Peer

VERSION = "3.1.7"
BEFORE = "2026-07-01"
"""Haraka and all it needs as they were published by this day, so that the same is measured each time."""
INSTALLED = Path(tempfile.gettempdir()) / f"apptrack-benchmarks-haraka-{VERSION}-{os.getuid()}"
"""Outside the checkout, and kept for the next run."""

PLUGIN = """
'use strict';
const fs = require('node:fs');
const crypto = require('node:crypto');

exports.hook_rcpt = function (next) { next(OK); };

exports.hook_queue = function (next, connection) {
  const name = process.env.MAILS + '/' + crypto.randomUUID();
  const file = fs.createWriteStream(name + '.tmp', { flush: true });  // flush: fsync before it is closed
  file.on('error', () => next(DENYSOFT));
  file.on('close', () => {
    fs.rename(name + '.tmp', name, (failed) => {
      if (failed) return next(DENYSOFT);
      fs.open(process.env.MAILS, 'r', (_, directory) => {
        fs.fsync(directory, () => fs.close(directory, () => next(OK)));
      });
    });
  });
  connection.transaction.message_stream.pipe(file, { line_endings: '\\r\\n' });
};
"""


CONNECTION = """
[main]
[haproxy]
hosts[] =
[headers]
max_lines=1000
max_received=100
[max]
bytes=30000000
mime_parts=1000
line_length=512
data_line_length=992
[message]
helo=hello
close=bye
[uuid]
banner_chars=6
deny_chars=0
"""
"""Its own default, which it does not read once it has a directory of configuration, but for `bytes`."""


class Haraka(Peer):
    name = "Haraka, file + fsync"

    def launch(self) -> None:
        module = _installed()
        self.mails = self.home / "mails"
        for name in ("mails", "config", "plugins", "queue"):
            (self.home / name).mkdir()
        (self.home / "plugins" / "keep.js").write_text(PLUGIN)
        for name, text in {
            "plugins": "keep\n",
            "smtp.ini": f"listen=127.0.0.1:{self.port}\nnodes=0\n",
            "connection.ini": CONNECTION,
            "loglevel": "LOGWARN\n",
            "me": "mx.bench.example\n",
        }.items():
            (self.home / "config" / name).write_text(text)
        self.spawn(_node(), module / "bin" / "haraka", "-c", self.home, env={**os.environ, "MAILS": str(self.mails)})

    mails = Path()

    def kept(self) -> int | None:
        return sum(1 for path in self.mails.iterdir() if path.suffix != ".tmp")


def _node() -> str:
    found = shutil.which("node")
    if found is None or shutil.which("npm") is None:
        raise Missing("node and npm are not installed (Haraka needs Node.js 20 or newer)")
    return found


def _installed() -> Path:
    module = INSTALLED / "node_modules" / "Haraka"
    _node()
    if not (INSTALLED / "complete").exists():
        shutil.rmtree(INSTALLED, ignore_errors=True)
        INSTALLED.mkdir(mode=0o700)
        (INSTALLED / "package.json").write_text('{"private": true}')
        run = subprocess.run(  # noqa: S603
            ["npm", "install", "--no-audit", "--no-fund", "--omit=optional", f"--before={BEFORE}", f"Haraka@{VERSION}"],  # noqa: S607
            cwd=INSTALLED,
            capture_output=True,
            text=True,
            check=False,
        )
        if run.returncode != 0:
            raise Missing(f"npm could not install Haraka {VERSION}: {run.stderr.strip().splitlines()[-1:]}")
        (INSTALLED / "complete").touch()
    return module
