"""A report as the `<applicant>` element of idibu's applicant-status service (seed-applicant-status.txt)."""

from dataclasses import replace
from datetime import UTC, datetime, tzinfo

from lxml import etree

from apptrack_ingest.idibu.xml import clean
from apptrack_ingest.model import Report, ReportStatus
from apptrack_ingest.phrases import NO_REASON

TEXT_LIMIT = 1000
"""Characters of a remote id or an error message; idibu documents no limit, and more than this nobody reads."""


def to_xml(report: Report, timezone: tzinfo = UTC) -> str:
    """The element for the form field `data`; `date-processed` is written in `timezone` (idibu names none)."""
    report = as_sent(report)
    applicant = etree.Element("applicant")
    _add(applicant, "status", report.status)
    _add(applicant, "remote-id", report.remote_id)
    _add(applicant, "error-message", report.error_message)
    _add(applicant, "date-processed", f"{datetime.fromtimestamp(report.date_processed, timezone):%Y-%m-%d %H:%M:%S}")
    return etree.tostring(applicant, encoding="unicode")


def as_sent(report: Report) -> Report:
    """The report with its texts as idibu gets them: fit for XML, cut, and a fail never without a reason."""
    words = clean(report.error_message or "", TEXT_LIMIT) or (NO_REASON if report.status is ReportStatus.FAIL else None)
    return replace(report, remote_id=clean(report.remote_id or "", TEXT_LIMIT) or None, error_message=words)


def _add(parent: etree._Element, name: str, text: str | None) -> None:
    """An optional element is left out when it is empty."""
    if text:
        etree.SubElement(parent, name).text = text
