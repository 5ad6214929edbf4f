"""idibu's web services: a client for them, and a sandbox that plays idibu where the real one cannot be reached."""

from apptrack_ingest.errors import (
    IdibuError,
    IdibuNotUnderstood,
    IdibuRefused,
    IdibuUnauthorized,
    IdibuUnreachable,
)
from apptrack_ingest.idibu.accounts import (
    AccountChanges,
    AccountCredits,
    AccountDetails,
    AccountEntry,
    ChangedAccount,
    ChangedCredits,
    Credits,
    Done,
    EnabledServices,
    GlobalCc,
    NewAccount,
    Partner,
)
from apptrack_ingest.idibu.answers import ApplicantStatus
from apptrack_ingest.idibu.applicants import ListedApplicant
from apptrack_ingest.idibu.calls import IdibuBusy, Retry
from apptrack_ingest.idibu.client import Client
from apptrack_ingest.idibu.global_cc import CcChange, CcConflict, change_cc, planned
from apptrack_ingest.idibu.job_answers import (
    CancelAnswer,
    Cancellation,
    DuplicateReference,
    ErrorKind,
    JobAnswer,
    JobStatus,
    Note,
    Post,
    PostReason,
    PostStatus,
)
from apptrack_ingest.idibu.job_models import (
    Advert,
    Board,
    ByClientReference,
    ById,
    JobConfig,
    JobKey,
    JobTime,
    JobType,
    LockBoards,
    SalaryPer,
    ValidateLevel,
)
from apptrack_ingest.idibu.rehearsal import Rehearsal, rehearse
from apptrack_ingest.idibu.service_management import PartnerUnauthorized
from apptrack_ingest.idibu.statuses import Addressing, StatusUpdate
from apptrack_ingest.model import ReportStatus

__all__ = [
    "AccountChanges",
    "AccountCredits",
    "AccountDetails",
    "AccountEntry",
    "Addressing",
    "Advert",
    "ApplicantStatus",
    "Board",
    "ByClientReference",
    "ById",
    "CancelAnswer",
    "Cancellation",
    "CcChange",
    "CcConflict",
    "ChangedAccount",
    "ChangedCredits",
    "Client",
    "Credits",
    "Done",
    "DuplicateReference",
    "EnabledServices",
    "ErrorKind",
    "GlobalCc",
    "IdibuBusy",
    "IdibuError",
    "IdibuNotUnderstood",
    "IdibuRefused",
    "IdibuUnauthorized",
    "IdibuUnreachable",
    "JobAnswer",
    "JobConfig",
    "JobKey",
    "JobStatus",
    "JobTime",
    "JobType",
    "ListedApplicant",
    "LockBoards",
    "NewAccount",
    "Note",
    "Partner",
    "PartnerUnauthorized",
    "Post",
    "PostReason",
    "PostStatus",
    "Rehearsal",
    "ReportStatus",
    "Retry",
    "SalaryPer",
    "StatusUpdate",
    "ValidateLevel",
    "change_cc",
    "planned",
    "rehearse",
]
