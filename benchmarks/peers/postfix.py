"""Postfix with configuration, queue and port of its own: accepting into its queue, or handing each mail to a script."""

import contextlib
import os
import pwd
import shutil
import subprocess
import time

import processes

from peers import Missing, Peer, program

MAIN = """
compatibility_level = 3.6
queue_directory = {home}/queue
data_directory = {home}/data
maillog_file = {home}/log
maillog_file_prefixes = {home}
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
myhostname = mx.bench.example
mydestination =
relay_domains = bench.example
mynetworks = 127.0.0.0/8
smtpd_relay_restrictions = permit_mynetworks, reject
smtpd_tls_security_level = none
alias_maps =
alias_database =
message_size_limit = 40000000
mailbox_size_limit = 0
smtp_dns_support_level = disabled
smtp_host_lookup = native
# It counts connections for limits that loopback is exempt from anyway.
smtpd_client_connection_count_limit = 0
default_transport = {transport}
relay_transport = {transport}
{more}
"""

MASTER = """
127.0.0.1:{port} inet n - n - - smtpd
pickup     unix  n - n 60 1 pickup
cleanup    unix  n - n - 0 cleanup
qmgr       unix  n - n 300 1 qmgr
rewrite    unix  - - n - - trivial-rewrite
bounce     unix  - - n - 0 bounce
defer      unix  - - n - 0 bounce
trace      unix  - - n - 0 bounce
verify     unix  - - n - 1 verify
flush      unix  n - n 1000? 0 flush
proxymap   unix  - - n - - proxymap
proxywrite unix  - - n - 1 proxymap
showq      unix  n - n - - showq
error      unix  - - n - - error
retry      unix  - - n - - error
discard    unix  - - n - - discard
anvil      unix  - - n - 1 anvil
postlog    unix-dgram n - n - 1 postlogd
script     unix  - n n - - pipe
  flags= user={user} argv={script}
"""


class Postfix(Peer):
    """`hold`: every mail stays in the queue, on the disk, as the queue manager would find it after a crash."""

    name = "Postfix, into its queue"
    transport = "discard:"
    more = "smtpd_sender_restrictions = static:HOLD"
    script = "/bin/true"

    def launch(self) -> None:
        postfix = program("postfix", "postfix")
        if os.geteuid() != 0:
            raise Missing("Postfix's master needs root")
        self._prepare()
        started = subprocess.run(  # noqa: S603
            [postfix, "-c", str(self.home / "etc"), "start"], capture_output=True, text=True, check=False
        )
        if started.returncode != 0:
            raise RuntimeError(started.stdout + started.stderr)

    def _prepare(self) -> None:
        self.home.chmod(0o755)
        for name in ("etc", "queue", "data"):
            (self.home / name).mkdir(mode=0o755)
        shutil.chown(self.home / "data", "postfix", "postfix")
        values = {"home": self.home, "transport": self.transport, "more": self.more}
        (self.home / "etc" / "main.cf").write_text(MAIN.format(**values))
        user = pwd.getpwnam("nobody").pw_name
        master = MASTER.format(port=self.port, user=user, script=self.script)
        (self.home / "etc" / "master.cf").write_text(master)

    @property
    def roots(self) -> tuple[int, ...]:
        return (int((self.home / "queue" / "pid" / "master.pid").read_text()),)

    def stop(self) -> None:
        """By the number of its own master, and waits for the end of that."""
        with contextlib.suppress(OSError):
            (master,) = self.roots
            os.kill(master, 15)
            deadline = time.monotonic() + processes.PATIENCE
            while time.monotonic() < deadline:
                os.kill(master, 0)
                time.sleep(0.02)

    def kept(self) -> int | None:
        return sum(1 for path in (self.home / "queue" / "hold").rglob("*") if path.is_file())


class PipedPostfix(Postfix):
    """Hands every mail to a Python script that reads it and posts it: what people do today."""

    name = "Postfix + pipe(8) + script"
    transport = "script:"
    more = "script_destination_recipient_limit = 1"

    def __init__(self, endpoint: str) -> None:
        super().__init__()
        self._endpoint = endpoint

    def launch(self) -> None:
        python = shutil.which("python3", path="/usr/bin")
        if python is None:
            raise Missing("/usr/bin/python3 is not there (the script runs as nobody)")
        script = self.home / "deliver.py"
        script.write_text(f"#!{python}\nENDPOINT = {self._endpoint!r}\n{SCRIPT}")
        script.chmod(0o755)
        self.script = str(script)
        super().launch()

    def kept(self) -> int | None:
        """What still waits in its queue."""
        waiting = ("incoming", "active", "deferred")
        return sum(1 for name in waiting for path in (self.home / "queue" / name).rglob("*") if path.is_file())


SCRIPT = """
import email, email.policy, json, sys, urllib.parse, urllib.request, base64

message = email.message_from_binary_file(sys.stdin.buffer, policy=email.policy.default)
applicant = message["X-iTrackID"]
documents = [
    {"name": part.get_filename(), "size": len(part.get_payload(decode=True) or b"")}
    for part in message.iter_attachments()
]
text = message.get_body(("plain", "html"))
candidate = {"id": applicant, "from": message["From"], "documents": documents, "text": text and text.get_content()}
# Here it would go to the ATS, which is a no-op for both sides; then idibu is told.
status = "<applicant><status>success</status></applicant>"
form = urllib.parse.urlencode({"data": status}).encode()
url = f"{ENDPOINT}/ws/rest/v1/applicant-status/{applicant}?hash=bench"
with urllib.request.urlopen(url, form, timeout=30) as answer:
    sys.exit(0 if b"success" in answer.read() else 75)
"""
