"""The exposition is true: across processes, across a child's death, and for what the spool holds."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from apptrack_ingest import metrics
from apptrack_ingest.metrics import Surroundings
from apptrack_ingest.model import Backlog, HeldReason, PausedBy, ReportState, Stage, State

DOCUMENT = Path(__file__).parents[2] / "docs" / "metrics.md"
NOW = 1_000_000.0

RECORDS_EVERYTHING = """
import sys
from apptrack_ingest import metrics
at = float(sys.argv[1])
metrics.received(["acme", None], trusted=True, at=at)
metrics.received(["acme"], trusted=False, at=at)
metrics.replied(250)
metrics.replied(451)
metrics.session_opened()
metrics.session_opened()
metrics.session_closed()
metrics.accepted(0.02)
metrics.hand_off_attempted("acme", "folder", "delivered", handler_seconds=0.3)
metrics.hand_off_attempted(None, "", "held")
metrics.handed_off(2.0)
metrics.report_attempted("acme", "confirmed")
metrics.reported(86_000.0)
metrics.reconciled("acme", {"missing": at % 10, "due": 0}, at)
print("recorded", flush=True)
sys.stdin.read()
"""


class Child:
    """A process that records once, says so, and lives until it is told to end."""

    def __init__(self, environment: dict[str, str], at: float = NOW) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", RECORDS_EVERYTHING, str(at)],
            env={**os.environ, **environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self.pid = self._process.pid
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == b"recorded\n"

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate()


def samples(text: bytes) -> dict[str, float]:
    """`name{label=value,…}` → value, labels in alphabetical order."""
    found = {}
    for family in text_string_to_metric_families(text.decode()):
        for sample in family.samples:
            labels = ",".join(f"{key}={value}" for key, value in sorted(sample.labels.items()))
            found[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
    return found


def backlog() -> Backlog:
    return Backlog(
        applications={("acme", State.RECEIVED): 2, ("acme", State.HELD): 1, ("", State.HELD): 3},
        held={("acme", HeldReason.UNREADABLE): 1, ("", HeldReason.UNROUTED): 3},
        reports={("acme", ReportState.DUE): 4, ("acme", ReportState.REFUSED): 1},
        oldest_hand_off={"acme": NOW - 90},
        oldest_report={"acme": NOW - 600},
        paused={("acme", Stage.REPORT): PausedBy.ITSELF, ("acme", Stage.HAND_OFF): PausedBy.PERSON},
        size_bytes=4096,
    )


def scrape(
    directory: Path | None = None, held: Backlog | None = None, around: Surroundings | None = None
) -> dict[str, float]:
    body, content_type = metrics.exposition(held, NOW, around or Surroundings(children=directory))
    assert content_type.startswith("text/plain; version=0.0.4")
    return samples(body)


def test_the_document_has_a_section_for_each_metric_with_its_labels_and_no_other() -> None:
    documented = {
        match[1]: tuple(match[2].split(",")) if match[2] else ()
        for match in re.finditer(r"^#+ `(apptrack_\w+)(?:\{([a-z,]+)\})?`$", DOCUMENT.read_text(), re.MULTILINE)
    }
    assert documented == metrics.CATALOGUE


def test_each_exposed_family_is_in_the_catalogue(tmp_path: Path) -> None:
    around = Surroundings(accounts=("acme",), up={"intake": True}, data_dir=tmp_path)
    metrics.process_restarted("tested")
    body, _ = metrics.exposition(backlog(), NOW, around)
    exposed = set(re.findall(r"^# TYPE (\S+)", body.decode(), re.MULTILINE))
    assert exposed == set(metrics.CATALOGUE)


def test_the_words_of_the_documented_results_are_the_ones_recorded() -> None:
    text = DOCUMENT.read_text()
    words = [*metrics.HandOffResult.__args__, *metrics.ReportResult.__args__]  # type: ignore[attr-defined]
    words += [word.value for kind in (State, HeldReason, ReportState) for word in kind]
    assert [word for word in words if f"`{word}`" not in text] == []


def test_a_process_alone_exposes_what_it_recorded() -> None:
    before = scrape()
    metrics.received(["acme", None], trusted=True, at=NOW)
    metrics.replied(250)
    metrics.hand_off_attempted("acme", "folder", "delivered", handler_seconds=0.3)
    after = scrape()

    def rise(name: str) -> float:
        return after[name] - before.get(name, 0.0)

    assert rise("apptrack_messages_received_total{trusted=yes}") == 1
    assert rise("apptrack_applications_received_total{account=}") == 1
    assert rise("apptrack_smtp_replies_total{code=250}") == 1
    assert rise("apptrack_hand_off_attempts_total{account=acme,handler=folder,result=delivered}") == 1
    assert rise("apptrack_hand_off_seconds_bucket{handler=folder,le=0.5}") == 1
    assert rise("apptrack_hand_off_seconds_bucket{handler=folder,le=0.25}") == 0


@pytest.mark.parametrize("code", [0, -1, 42, 999, 100_000])
def test_a_reply_that_is_no_reply_makes_no_series_of_its_own(code: int) -> None:
    metrics.replied(code)
    assert {name for name in scrape() if name.startswith("apptrack_smtp_replies_total")} <= {
        "apptrack_smtp_replies_total{code=0}",
        "apptrack_smtp_replies_total{code=250}",
    }


def test_a_time_that_ran_backwards_is_counted_as_zero() -> None:
    before = scrape()["apptrack_accept_seconds_sum"]
    metrics.accepted(-5.0)
    assert scrape()["apptrack_accept_seconds_sum"] == before


def test_the_supervisor_adds_up_its_children(tmp_path: Path) -> None:
    environment = metrics.multiprocess_dir(tmp_path / "metrics")
    children = [Child(environment, at=NOW), Child(environment, at=NOW + 5)]
    try:
        found = scrape(tmp_path / "metrics")
    finally:
        for child in children:
            child.kill()
    assert found["apptrack_applications_received_total{account=acme}"] == 4
    assert found["apptrack_smtp_replies_total{code=451}"] == 2
    assert found["apptrack_smtp_sessions"] == 2
    assert found["apptrack_last_received_timestamp_seconds{account=acme}"] == NOW + 5
    assert found["apptrack_receive_to_report_seconds_bucket{le=86400.0}"] == 2
    assert found["apptrack_receive_to_report_seconds_bucket{le=43200.0}"] == 0
    assert not any("pid=" in name for name in found)


def test_killed_children_keep_counting_but_their_gauges_end_and_their_files_do_not_pile_up(tmp_path: Path) -> None:
    directory = tmp_path / "metrics"
    environment = metrics.multiprocess_dir(directory)
    for generation in range(3):
        child = Child(environment, at=NOW - generation)
        child.kill()
        metrics.child_exited(directory, child.pid)
    files_after_three = sorted(path.name for path in directory.iterdir())
    living = Child(environment, at=NOW - 100)
    try:
        found = scrape(directory)
    finally:
        living.kill()
    assert files_after_three == ["counter_0.db", "gauge_max_0.db", "gauge_mostrecent_0.db", "histogram_0.db"]
    assert found["apptrack_messages_received_total{trusted=no}"] == 4
    assert found["apptrack_accept_seconds_count"] == 4
    assert found["apptrack_accept_seconds_bucket{le=0.025}"] == 4
    assert found["apptrack_accept_seconds_bucket{le=0.01}"] == 0
    assert found["apptrack_accept_seconds_sum"] == pytest.approx(0.08)
    assert found["apptrack_smtp_sessions"] == 1
    assert found["apptrack_last_received_timestamp_seconds{account=acme}"] == NOW


def test_of_a_gauge_that_says_how_something_was_last_the_last_value_stays(tmp_path: Path) -> None:
    """Whichever process set it, and whether it still runs."""
    directory = tmp_path / "metrics"
    environment = metrics.multiprocess_dir(directory)
    for at in (NOW + 3, NOW + 1, NOW + 2):
        child = Child(environment, at=at)
        child.kill()
        metrics.child_exited(directory, child.pid)
    assert scrape(directory)["apptrack_reconcile_findings{account=acme,finding=missing}"] == 2
    living = Child(environment, at=NOW)
    try:
        found = scrape(directory)
    finally:
        living.kill()
    assert found["apptrack_reconcile_findings{account=acme,finding=missing}"] == 0
    assert found["apptrack_reconcile_findings{account=acme,finding=due}"] == 0
    assert found["apptrack_reconcile_timestamp_seconds{account=acme}"] == NOW


def test_a_child_that_recorded_nothing_can_exit(tmp_path: Path) -> None:
    metrics.multiprocess_dir(tmp_path)
    metrics.child_exited(tmp_path, 4_000_000)
    assert scrape(tmp_path)["apptrack_scrape_ok"] == 0


def test_a_file_just_created_does_not_break_the_scrape(tmp_path: Path) -> None:
    metrics.multiprocess_dir(tmp_path)
    (tmp_path / "counter_4000000.db").touch()
    assert scrape(tmp_path)["apptrack_scrape_ok"] == 0


def test_a_supervisor_starts_with_a_clean_private_directory(tmp_path: Path) -> None:
    directory = tmp_path / "metrics"
    Child(metrics.multiprocess_dir(directory)).kill()
    assert list(directory.glob("*.db"))
    metrics.multiprocess_dir(directory)
    assert not list(directory.glob("*.db"))
    assert directory.stat().st_mode & 0o777 == 0o700


def test_restarts_are_counted_by_the_supervisor_itself(tmp_path: Path) -> None:
    metrics.multiprocess_dir(tmp_path)
    metrics.process_restarted("worker-under-test")
    assert scrape(tmp_path)["apptrack_process_restarts_total{role=worker-under-test}"] == 1
    assert scrape()["apptrack_process_restarts_total{role=worker-under-test}"] == 1


def test_the_backlog_becomes_gauges() -> None:
    found = scrape(held=backlog())
    assert found["apptrack_scrape_ok"] == 1
    assert found["apptrack_applications{account=,state=held}"] == 3
    assert found["apptrack_applications{account=acme,state=failed}"] == 0
    assert found["apptrack_applications_held{account=acme,reason=unreadable}"] == 1
    assert found["apptrack_reports{account=acme,state=refused}"] == 1
    assert found["apptrack_backlog{account=acme,stage=hand-off}"] == 2
    assert found["apptrack_backlog{account=acme,stage=report}"] == 4
    assert found["apptrack_oldest_seconds{account=acme,stage=hand-off}"] == 90
    assert found["apptrack_oldest_seconds{account=acme,stage=report}"] == 600
    assert found["apptrack_oldest_seconds{account=,stage=report}"] == 0
    assert found["apptrack_paused{account=acme,by=itself,stage=report}"] == 1
    assert found["apptrack_spool_size_bytes"] == 4096


def test_configured_accounts_show_even_when_nothing_is_there(tmp_path: Path) -> None:
    empty = Backlog({}, {}, {}, {}, {}, {}, 0)
    around = Surroundings(
        accounts=("acme", "bolt"), without_hash=frozenset({"bolt"}), up={"worker": False}, data_dir=tmp_path
    )
    found = scrape(held=empty, around=around)
    assert found["apptrack_oldest_seconds{account=bolt,stage=hand-off}"] == 0
    assert found["apptrack_applications{account=acme,state=held}"] == 0
    assert found["apptrack_reporting_without_hash{account=acme}"] == 0
    assert found["apptrack_reporting_without_hash{account=bolt}"] == 1
    assert found["apptrack_process_up{role=worker}"] == 0
    assert found["apptrack_spool_free_bytes"] > 0


def test_without_a_backlog_its_gauges_are_missing_rather_than_zero(tmp_path: Path) -> None:
    around = Surroundings(accounts=("acme",), data_dir=tmp_path / "gone")
    found = scrape(around=around)
    assert found["apptrack_scrape_ok"] == 0
    missing = ("apptrack_backlog", "apptrack_oldest", "apptrack_applications{", "apptrack_reports", "apptrack_spool")
    assert not [name for name in found if name.startswith(missing)]


def test_build_info_says_what_runs() -> None:
    (info,) = [name for name in scrape() if name.startswith("apptrack_build_info")]
    assert f"python={sys.version.split()[0]}" in info
    assert "version=" in info
