"""A report as the `<applicant>` element of idibu's applicant-status service (seed-applicant-status.txt)."""

from datetime import UTC, datetime, tzinfo

from lxml import etree

from apptrack_ingest.idibu.xml import clean
from apptrack_ingest.model import Report, ReportStatus

TEXT_LIMIT = 1000
"""Characters of a remote id or an error message; idibu documents no limit, and more than this nobody reads."""

NO_REASON = "The application could not be processed."
"""The error message of a fail that came without a reason: the document expects one there."""


def to_xml(report: Report, timezone: tzinfo = UTC) -> str:
    """The element for the form field `data`; `date-processed` is written in `timezone` (idibu names none)."""
    applicant = etree.Element("applicant")
    _add(applicant, "status", report.status)
    _add(applicant, "remote-id", clean(report.remote_id or "", TEXT_LIMIT))
    _add(applicant, "error-message", _error_message(report))
    _add(applicant, "date-processed", f"{datetime.fromtimestamp(report.date_processed, timezone):%Y-%m-%d %H:%M:%S}")
    return etree.tostring(applicant, encoding="unicode")


def _error_message(report: Report) -> str:
    message = clean(report.error_message or "", TEXT_LIMIT)
    return message or (NO_REASON if report.status is ReportStatus.FAIL else "")


def _add(parent: etree._Element, name: str, text: str) -> None:
    """An optional element is left out when it is empty."""
    if text:
        etree.SubElement(parent, name).text = text
