"""The alert rules: promtool accepts them and their tests, every metric exists, and the runbook has a section for each."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from apptrack_ingest.metrics import CATALOGUE

ROOT = Path(__file__).resolve().parents[3]
RULES = ROOT / "deploy" / "alerts.yml"
TESTS = ROOT / "deploy" / "alerts_test.yml"
RUNBOOK = ROOT / "docs" / "runbook.md"
PROMETHEUS_OWN = {"up"}
SERIES_SUFFIX = re.compile(r"_(bucket|sum|count)$")


def rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"]]


def promtool(*words: str) -> subprocess.CompletedProcess[str]:
    if not shutil.which("promtool"):
        pytest.skip("promtool is missing: the alert rules are NOT checked (Debian: apt install prometheus)")
    return subprocess.run(["promtool", *words], capture_output=True, text=True, timeout=120)


def metrics_of(expression: str) -> set[str]:
    """The metrics an expression reads, without what is inside of label matchers."""
    bare = re.sub(r"\{[^}]*\}", "", expression)
    return {SERIES_SUFFIX.sub("", name) for name in re.findall(r"\b(?:apptrack_\w+|up)\b", bare)}


def anchor(heading: str) -> str:
    """How GitHub and others link to a heading."""
    return re.sub(r"[^\w -]", "", heading.lower()).strip().replace(" ", "-")


def sections() -> dict[str, str]:
    """The runbook's sections by their anchor."""
    parts = re.split(r"^## (.+)\n", RUNBOOK.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return dict(zip(map(anchor, parts[1::2]), parts[2::2], strict=True))


def test_promtool_accepts_the_rules() -> None:
    done = promtool("check", "rules", str(RULES))
    assert done.returncode == 0, done.stdout + done.stderr


def test_promtool_accepts_prometheus_yml() -> None:
    done = promtool("check", "config", str(ROOT / "deploy" / "prometheus.yml"))
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_rules_pass_their_unit_tests() -> None:
    done = promtool("test", "rules", str(TESTS))
    assert done.returncode == 0, done.stdout + done.stderr


def test_each_alert_is_tested_to_fire() -> None:
    fired = set()
    for case in yaml.safe_load(TESTS.read_text(encoding="utf-8"))["tests"]:
        for question in case["promql_expr_test"]:
            fired |= {name for s in question["exp_samples"] for name in re.findall(r'alertname="(\w+)"', s["labels"])}
    assert fired == {rule["alert"] for rule in rules()}


def test_the_quiet_case_feeds_every_metric_that_an_alert_reads() -> None:
    quiet = yaml.safe_load(TESTS.read_text(encoding="utf-8"))["tests"][0]
    assert all(question["exp_samples"] == [] for question in quiet["promql_expr_test"])
    fed = {name for series in quiet["input_series"] for name in metrics_of(series["series"])}
    assert fed == {name for rule in rules() for name in metrics_of(rule["expr"])}


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule["alert"])
def test_it_reads_metrics_that_exist(rule: dict[str, Any]) -> None:
    used = metrics_of(rule["expr"])
    assert used
    assert used <= set(CATALOGUE) | PROMETHEUS_OWN


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule["alert"])
def test_its_label_matchers_use_labels_that_exist(rule: dict[str, Any]) -> None:
    for name, matchers in re.findall(r"\b(apptrack_\w+)\{([^}]*)\}", rule["expr"]):
        labels = set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", matchers))
        assert labels <= set(CATALOGUE[SERIES_SUFFIX.sub("", name)])


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule["alert"])
def test_the_runbook_says_what_it_means_and_what_to_do(rule: dict[str, Any]) -> None:
    page, _, wanted = rule["annotations"]["runbook_url"].partition("#")
    assert ROOT / page == RUNBOOK
    assert wanted == anchor(rule["alert"])
    assert len(sections()[wanted].split()) > 40, "a paragraph at least"
    assert rule["labels"]["severity"] in ("critical", "warning")
    assert rule["annotations"]["summary"] and rule["annotations"]["description"]


def test_the_runbook_has_no_section_for_an_alert_that_is_gone() -> None:
    alerts = {anchor(rule["alert"]) for rule in rules()}
    assert {name for name in sections() if name.startswith("apptrack")} == alerts
