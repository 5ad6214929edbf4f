"""What can be found, what each means and what to do about it, in one line each."""

from dataclasses import dataclass, field
from enum import StrEnum


class Kind(StrEnum):
    """The kinds of findings: the first four can be put right by telling idibu again."""

    MISSING = "missing"
    DIFFERENT = "different"
    REFUSED = "refused"
    FAILED = "failed"
    DUE = "due"
    PAUSED = "paused"
    NOT_OURS = "not-ours"
    NO_MAIL = "no-mail"


MEANING: dict[Kind, str] = {
    Kind.MISSING: "idibu confirmed the outcome and shows none now; --fix tells it again",
    Kind.DIFFERENT: "idibu confirmed the outcome and shows another now: an update was lost, or somebody else wrote it;"
    " --fix tells ours again",
    Kind.REFUSED: "idibu said no for a whole day; `show ID` has its words; --fix tries again",
    Kind.FAILED: "the outcome did not reach idibu within its whole schedule; --fix tries again",
    Kind.DUE: "still to be told; it is tried by itself, nothing to do",
    Kind.PAUSED: "waits, for reporting of the account is paused; `pauses` says why, `resume ACCOUNT --reporting` ends it",
    Kind.NOT_OURS: "idibu has a status that we never reported: another system's, or older than this ledger; left alone",
    Kind.NO_MAIL: "idibu has the applicant, and no mail for this account came; look into the mail's way here, and into"
    " `list --held-reason untrusted` and `unrouted`",
}
"""One line for people: what it means, and what to do."""

FIXABLE = frozenset({Kind.MISSING, Kind.DIFFERENT, Kind.REFUSED, Kind.FAILED})
"""What `fix` tells again: outcomes of ours that idibu ought to show."""

WRONG = FIXABLE | {Kind.NO_MAIL}
"""What a person should do something about; the rest goes on by itself, or is none of our business."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One applicant about whom ledger and idibu do not say the same. `application_id` and `report_id` are the ledger's;
    `ours` and `theirs` are the outcome as each has it, in words for people (a remote id, an error message), never for a
    log."""

    account: str
    kind: Kind
    applicant_id: int
    application_id: int | None = None
    report_id: int | None = None
    ours: str | None = field(default=None, repr=False)
    theirs: str | None = field(default=None, repr=False)
