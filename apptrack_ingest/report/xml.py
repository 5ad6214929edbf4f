"""A report as the `<applicant>` element of idibu's applicant-status service (seed-applicant-status.txt)."""

from dataclasses import replace
from datetime import UTC, datetime, tzinfo

from apptrack_ingest.idibu.xml import clean
from apptrack_ingest.model import Report, ReportStatus
from apptrack_ingest.phrases import NO_REASON

TEXT_LIMIT = 1000
"""Characters of a remote id or an error message; idibu documents no limit, and more than this nobody reads."""


def to_xml(report: Report, timezone: tzinfo = UTC) -> str:
    """The element for the form field `data`; `date-processed` is written in `timezone` (idibu names none)."""
    remote_id, words = _texts(report)
    date = f"{datetime.fromtimestamp(report.date_processed, timezone):%Y-%m-%d %H:%M:%S}"
    return (
        f"<applicant><status>{report.status}</status>{_element('remote-id', remote_id)}{_element('error-message', words)}"
        f"<date-processed>{date}</date-processed></applicant>"
    )


def as_sent(report: Report) -> Report:
    """The report with its texts as idibu gets them: fit for XML, cut, and a fail never without a reason."""
    remote_id, words = _texts(report)
    return replace(report, remote_id=remote_id, error_message=words)


def _texts(report: Report) -> tuple[str | None, str | None]:
    """The remote id and the error message."""
    remote_id, words = report.remote_id, report.error_message
    remote_id = clean(remote_id, TEXT_LIMIT) or None if remote_id else None
    words = clean(words, TEXT_LIMIT) or None if words else None
    return remote_id, NO_REASON if words is None and report.status is ReportStatus.FAIL else words


def _element(name: str, text: str | None) -> str:
    """As lxml would write it; left out when it is empty."""
    if not text:
        return ""
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("\r", "&#13;")
    return f"<{name}>{text}</{name}>"
