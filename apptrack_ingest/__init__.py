"""The catalogue for handler authors: everything a handler needs, and nothing else."""

from apptrack_ingest.errors import RetryLater
from apptrack_ingest.model import (
    Accepted,
    Application,
    Candidate,
    Document,
    Duplicate,
    Hint,
    Job,
    Owner,
    Person,
    Previous,
    Rejected,
    Role,
    Source,
    Verdict,
)
from apptrack_ingest.payload import to_payload

__all__ = [
    "Accepted",
    "Application",
    "Candidate",
    "Document",
    "Duplicate",
    "Hint",
    "Job",
    "Owner",
    "Person",
    "Previous",
    "Rejected",
    "RetryLater",
    "Role",
    "Source",
    "Verdict",
    "to_payload",
]
