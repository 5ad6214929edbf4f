"""A Postfix of the test's own: own configuration, queue and port, relaying by several transports to one listener."""

import contextlib
import json
import os
import shutil
import signal
import smtplib
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

import pytest
from end_to_end.programs import program

MAIN = """
compatibility_level = 3.6
queue_directory = {home}/queue
data_directory = {home}/data
maillog_file = {home}/log
maillog_file_prefixes = {home}
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
myhostname = relay.test.example
mydestination =
mynetworks = 127.0.0.0/8
smtpd_relay_restrictions = permit_mynetworks, reject
smtpd_tls_security_level = none
alias_maps =
alias_database =
message_size_limit = 20000000
mailbox_size_limit = 0
smtp_dns_support_level = disabled
smtp_host_lookup = native
# As long as a busy machine may take from one mail to the next.
smtp_connection_cache_time_limit = 100s
connection_cache_ttl_limit = 100s
smtp_tls_CAfile = {authority}
transport_maps = inline:{{ {routes} }}
default_transport = error:5.1.2 mail for nobody whom this test knows
# What comes back to the sender of a mail is laid into a file.
virtual_mailbox_domains = {returns}
virtual_mailbox_base = {home}/returned
virtual_mailbox_maps = static:mailbox
virtual_minimum_uid = 1
virtual_uid_maps = static:{uid}
virtual_gid_maps = static:{gid}
# Nothing is tried again until the test asks for it.
minimal_backoff_time = 1000s
maximal_backoff_time = 1000s
queue_run_delay = 1000s
"""

MASTER = """
127.0.0.1:{port} inet n - n - - smtpd
pickup     unix  n - n 60 1 pickup
cleanup    unix  n - n - 0 cleanup
qmgr       unix  n - n 300 1 qmgr
tlsmgr     unix  - - n 1000? 1 tlsmgr
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
virtual    unix  - n n - - virtual
anvil      unix  - - n - 1 anvil
scache     unix  - - n - 1 scache
postlog    unix-dgram n - n - 1 postlogd
"""

RETURNS = "returns.example"
SENDER = f"bounces@{RETURNS}"


class Postfix:
    """`transports` are its SMTP clients by name, each with its own settings; `routes` say which recipient goes by which,
    as `transport:nexthop`. Only root can run it (its master starts services as other users)."""

    def __init__(
        self, port: int, authority: Path, transports: Mapping[str, Mapping[str, str]], routes: Mapping[str, str]
    ) -> None:
        self._postfix = program("postfix")
        if os.geteuid() != 0:
            pytest.skip("NOT TESTED: Postfix as a client (its master needs root)")
        self.port = port
        # Not below pytest's directory: that is root's alone, and Postfix's services are not root.
        self._home = Path(tempfile.mkdtemp(prefix="postfix-", dir="/var/tmp"))
        self._configuration = self._home / "etc"
        self._prepare(authority, transports, routes)

    def _prepare(self, authority: Path, transports: Mapping[str, Mapping[str, str]], routes: Mapping[str, str]) -> None:
        self._home.chmod(0o755)
        for name in ("etc", "queue", "data", "returned"):
            (self._home / name).mkdir(mode=0o755)
        for name in ("data", "returned"):
            shutil.chown(self._home / name, "postfix", "postfix")
        owner = (self._home / "data").stat()
        (self._configuration / "main.cf").write_text(
            MAIN.format(
                home=self._home,
                authority=shutil.copy(authority, self._home / "authority.pem"),
                routes=", ".join(f"{{ {recipient} = {way} }}" for recipient, way in routes.items()),
                returns=RETURNS,
                uid=owner.st_uid,
                gid=owner.st_gid,
            )
        )
        clients = "".join(
            f"{name} unix - - n - - smtp{' -v' if settings.get('verbose') else ''}\n"
            + "".join(f"  -o {{ {key} = {value} }}\n" for key, value in settings.items() if key != "verbose")
            for name, settings in transports.items()
        )
        (self._configuration / "master.cf").write_text(MASTER.format(port=self.port) + clients)

    # --- running ------------------------------------------------------------------------------------------------------

    def __enter__(self) -> "Postfix":
        started = self._run("postfix", "start")
        if started.returncode != 0:
            shutil.rmtree(self._home, ignore_errors=True)
            raise AssertionError(started.stdout + started.stderr)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stops it by the number of its own master, and waits for the end of that."""
        master = int((self._home / "queue" / "pid" / "master.pid").read_text())
        os.kill(master, signal.SIGTERM)
        deadline = time.monotonic() + 30
        with contextlib.suppress(ProcessLookupError):
            while time.monotonic() < deadline:
                os.kill(master, 0)
                time.sleep(0.05)
        shutil.rmtree(self._home, ignore_errors=True)

    def _run(self, name: str, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [program(name, "postfix"), "-c", str(self._configuration), *words],
            capture_output=True,
            text=True,
            timeout=60,
            stdin=subprocess.DEVNULL,
        )

    # --- using --------------------------------------------------------------------------------------------------------

    def submit(self, *mails: tuple[bytes, str]) -> None:
        """Gives it mails, each with its recipient, in one session."""
        with smtplib.SMTP("127.0.0.1", self.port, timeout=30) as session:
            for mail, recipient in mails:
                session.sendmail(SENDER, [recipient], mail)

    def waiting(self) -> dict[str, str]:
        """What waits in its queue: the reason for each recipient ("" where it is being tried)."""
        found = self._run("postqueue", "-j")
        entries = [json.loads(line) for line in found.stdout.splitlines()]
        return {to["address"]: to.get("delay_reason", "") for entry in entries for to in entry["recipients"]}

    def flush(self) -> None:
        """Makes it try all that waits again, now."""
        self._run("postqueue", "-f")

    @property
    def log(self) -> str:
        """What it told so far."""
        return (self._home / "log").read_text(errors="replace")

    def deliveries(self, recipient: str) -> list[str]:
        """The lines of its log that tell how attempts for this recipient ended."""
        return [line for line in self.log.splitlines() if f"to=<{recipient}>" in line and "status=" in line]

    def returned(self) -> str:
        """The bounces that came back."""
        mailbox = self._home / "returned" / "mailbox"
        return mailbox.read_text(errors="replace") if mailbox.exists() else ""
