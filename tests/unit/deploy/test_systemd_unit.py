"""The systemd unit: systemd finds nothing to complain about, it is confined, and it leaves time to drain."""

import configparser
import re
import shutil
import socket
import subprocess
from pathlib import Path

import pytest

from apptrack_ingest.service.activated import by_listener
from apptrack_ingest.settings import Settings, load

DEPLOY = Path(__file__).resolve().parents[3] / "deploy"
UNIT = DEPLOY / "apptrack-ingest.service"
SOCKET = DEPLOY / "apptrack-ingest.socket"
DROP_INS = DEPLOY / "apptrack-ingest.service.d"
PORT_25 = DROP_INS / "port-25.conf"
MOST_EXPOSED = 20
"""Tenths of systemd's scale from 0 (nothing is possible) to 10; an unconfined service is at 9.6."""


def systemd_analyze(*words: str) -> subprocess.CompletedProcess[str]:
    if not shutil.which("systemd-analyze"):
        pytest.skip("systemd-analyze is missing: the unit is NOT checked (Debian: apt install systemd)")
    return subprocess.run(["systemd-analyze", *words], capture_output=True, text=True, timeout=60)


def parsed(path: Path) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(path, encoding="utf-8")
    return parser


@pytest.fixture(params=["", "port-25.conf", "credentials.conf"], ids=lambda name: name or "alone")
def installed(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """The unit as installed, its program replaced by one that exists here."""
    text = UNIT.read_text(encoding="utf-8")
    text, replaced = re.subn(r"^ExecStart=\S+", "ExecStart=/bin/true", text, flags=re.MULTILINE)
    assert replaced == 1
    unit = tmp_path / UNIT.name
    unit.write_text(text, encoding="utf-8")
    if request.param:
        (tmp_path / DROP_INS.name).mkdir()
        shutil.copy(DROP_INS / request.param, tmp_path / DROP_INS.name)
    return unit


def test_systemd_accepts_it(installed: Path) -> None:
    done = systemd_analyze("verify", "--man=no", str(installed))
    # An unknown key is a warning only, so that nothing at all may be said of our file.
    about_ours = [line for line in done.stderr.splitlines() if "apptrack-ingest" in line]
    assert (done.returncode, about_ours) == (0, [])


def test_systemd_accepts_the_socket(installed: Path) -> None:
    shutil.copy(SOCKET, installed.parent)
    done = systemd_analyze("verify", "--man=no", str(installed.parent / SOCKET.name))
    about_ours = [line for line in done.stderr.splitlines() if "apptrack-ingest" in line]
    assert (done.returncode, about_ours) == (0, [])


def test_the_socket_is_of_port_25_for_both_families_and_handed_over_whole() -> None:
    unit = parsed(SOCKET)
    assert unit["Socket"]["ListenStream"] == "25"
    assert unit["Socket"]["BindIPv6Only"] == "both"
    # With Accept=yes systemd would start a process for each connection.
    assert "Accept" not in unit["Socket"]
    assert unit["Install"]["WantedBy"] == "sockets.target"
    # Without Service= it belongs to the service of the same name.
    assert SOCKET.stem == UNIT.stem and "Service" not in unit["Socket"]


def test_the_settings_that_the_socket_unit_shows_take_its_socket(tmp_path: Path) -> None:
    shown = re.findall(r"^#     (.+)$", SOCKET.read_text(encoding="utf-8"), re.MULTILINE)
    file = tmp_path / "shown.toml"
    file.write_text("\n".join(shown) + '\n[accounts.acme]\nrecipients = ["in.acme.example"]\n', encoding="utf-8")
    with socket.socket() as given:
        ((listener, taken),) = by_listener(load(file, {}), {parsed(SOCKET)["Socket"]["FileDescriptorName"]: [given]})
        assert listener.socket == "smtp"
        assert taken == [given]


def test_it_is_confined(installed: Path) -> None:
    done = systemd_analyze("security", "--offline=true", f"--threshold={MOST_EXPOSED}", "--no-pager", str(installed))
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_stop_leaves_time_to_drain() -> None:
    service, settings = parsed(UNIT)["Service"], Settings()
    assert service["TimeoutStopSec"].endswith("s")
    assert float(service["TimeoutStopSec"][:-1]) > settings.smtp.drain_timeout + settings.worker.drain_timeout
    assert service["KillMode"] == "mixed", "the supervisor alone is told to stop; it tells its processes in order"


def test_a_reload_is_a_sighup() -> None:
    assert parsed(UNIT)["Service"]["ExecReload"] == "/bin/kill -HUP $MAINPID"


def test_only_the_drop_in_grants_a_capability() -> None:
    assert parsed(UNIT)["Service"]["CapabilityBoundingSet"] == ""
    assert parsed(PORT_25)["Service"]["CapabilityBoundingSet"] == "CAP_NET_BIND_SERVICE"
    assert parsed(PORT_25)["Service"]["AmbientCapabilities"] == "CAP_NET_BIND_SERVICE"


def test_the_credentials_are_where_the_drop_in_says() -> None:
    text = (DROP_INS / "credentials.conf").read_text(encoding="utf-8")
    name, _, source = parsed(DROP_INS / "credentials.conf")["Service"]["LoadCredential"].partition(":")
    assert f'hash_file = "/run/credentials/{UNIT.name}/{name}_NAME"' in text
    assert source == "/etc/apptrack-ingest/hashes"


def test_a_killed_worker_does_not_stop_the_intake() -> None:
    assert parsed(UNIT)["Service"]["OOMPolicy"] == "continue"


def test_its_user_is_the_one_that_sysusers_makes() -> None:
    service = parsed(UNIT)["Service"]
    made = (DEPLOY / "apptrack-ingest.sysusers.conf").read_text(encoding="utf-8").splitlines()[-1].split()
    assert made[:2] == ["u", service["User"]]
    assert made[-1] == f"/var/lib/{service['StateDirectory']}"
