"""An applicant's status as it is sent to idibu, and the two ways to ask for one (seed-applicant-status.txt)."""

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from lxml import etree

from apptrack_ingest.idibu import xml
from apptrack_ingest.model import ReportStatus


class Addressing(StrEnum):
    """How one applicant is named in a GET."""

    PATH = "path"
    """`/applicant-status/:id`, as the seed says."""
    QUERY = "query"
    """`/applicant-status?id=`, as later documents say."""


@dataclass(frozen=True, slots=True)
class StatusUpdate:
    """What to store of an applicant. A `fail` has to say why: the document expects an error message with it.

    `date_processed` is written as its own clock shows it (idibu names no time zone; None: idibu takes its current date).
    """

    status: ReportStatus
    remote_id: str | None = None
    error_message: str | None = field(default=None, repr=False)
    date_processed: datetime | None = None

    def __post_init__(self) -> None:
        if self.status is ReportStatus.FAIL and not (self.error_message or "").strip():
            raise ValueError("a fail needs an error message")

    def to_xml(self) -> str:
        """The `<applicant>` element for the form field `data`; what is not given is left out."""
        applicant = etree.Element("applicant")
        xml.add(applicant, "status", self.status)
        if self.remote_id:
            xml.add(applicant, "remote-id", self.remote_id)
        if self.error_message:
            xml.add(applicant, "error-message", self.error_message)
        if self.date_processed:
            xml.add(applicant, "date-processed", f"{self.date_processed:%Y-%m-%d %H:%M:%S}")
        return etree.tostring(applicant, encoding="unicode")
