"""Every error of ours in one tree, so that callers can tell temporary from permanent and whose fault it was.

    IngestError
    ├── ConfigError            the settings are wrong: what, where, what would be right; stops the start
    │   └── CannotListen       an address or port that cannot be had now, and perhaps later
    ├── SpoolError
    │   ├── SpoolUnavailable   temporary: locked, disk full, input/output error; nothing of the operation was kept
    │   ├── LeaseLost          somebody else holds the lease now; the settlement was not made
    │   └── NotFound           no such application, message or report
    ├── NotAllowed             the life of an application has no such step (the text says what to do instead)
    │   ├── BeingWorkedOn      … at this moment, as an attempt or a report of it is under way
    │   └── CcConflict              (idibu.Client) the Global CC is not what it was when its change was planned
    ├── Unreadable             the mail could not be parsed within its limits
    ├── ChildFailed            a process of `serve` does not start, or does not stay up
    ├── HandlerError           a handler cannot be found, loaded or configured
    ├── RetryLater             (public) a handler asks to be called again later
    └── IdibuError             temporary or not, see `.temporary`
        ├── IdibuRefused       a well-formed "failed" in idibu's own words
        │   └── DuplicateReference      (idibu.Client) the client reference belongs to another job already
        ├── IdibuUnauthorized  the account's hash is wrong (401, 403 or idibu's word for it)
        │   └── PartnerUnauthorized     (idibu.Client) the partner's password is
        ├── IdibuNotUnderstood something else came than idibu's XML
        │   └── IdibuBusy               (idibu.Client) a 429 or 503, with the wait it asks for
        └── IdibuUnreachable   no answer at all

No message here carries a secret or a candidate's data: ids, keys and reason codes only, except where a class says so.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal


class IngestError(Exception):
    """The root of all errors this package raises on purpose."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake in the settings: the dotted key, the value found (masked when secret), and what would be right."""

    key: str
    value: str
    advice: str

    def __str__(self) -> str:
        shown = f" = {self.value}" if self.value else ""
        return f"{self.key}{shown}: {self.advice}"


class ConfigError(IngestError):
    """The configuration cannot be used; `problems` lists every mistake found, not only the first."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


class CannotListen(ConfigError):
    """An address that is not there (yet) or a port in use: starting again later may help, so its exit code differs."""


class SpoolError(IngestError):
    """Anything the spool could not do."""


class SpoolUnavailable(SpoolError):
    """The spool's database cannot be used now; nothing of the operation was kept; try again later. `code` is the driver's
    or the system's short name for the reason, fit for logs; empty where there is none."""

    def __init__(self, text: str = "", *, code: str = "") -> None:
        self.code = code
        super().__init__(text)


class LeaseLost(SpoolError):
    """The lease ran out and its fencing token is no longer the newest; whoever holds it now decides."""


class NotFound(SpoolError):
    """There is no such application, message or report in the spool."""


class NotAllowed(IngestError):
    """The life of an application has no such step from its present state; the text says what is possible."""


class BeingWorkedOn(NotAllowed):
    """It has no such step at this moment, for an attempt or a report of it is under way; it may have when that is over."""


class Unreadable(IngestError):
    """A mail that could not be parsed within its limits; `code` is a short reason fit for logs."""

    def __init__(self, code: str, detail: str = "") -> None:
        self.code = code
        self.detail = detail
        super().__init__(f"{code}: {detail}" if detail else code)


class ChildFailed(IngestError):
    """A child could not be started at all, or does not stay up; `code` is the exit code for `serve` itself."""

    def __init__(self, name: str, code: int, *, was_ready: bool = False) -> None:
        self.code = code
        what = "does not stay up" if was_ready else "could not be started"
        super().__init__(f"the {name} {what} (exit code {code}); its own message stands above")


class HandlerError(IngestError):
    """A handler could not be found, imported or built from its settings."""


class RetryLater(IngestError):
    """Raised by a handler: not now, please call again.

    `reason` is in words (kept in the spool and shown to people, never logged); `after` is the least number of seconds to
    wait, when the ATS named one (HTTP Retry-After); without it the account's retry schedule decides. `about` says whom it
    concerns, where the handler knows: "ats", all applications (it was not reached, is overloaded, a quota is used up: with
    `after` the whole account waits until then); "application", this one alone (the ATS answered, all others may go on).
    """

    def __init__(
        self, reason: str, after: float | None = None, *, about: Literal["ats", "application"] | None = None
    ) -> None:
        self.reason = reason
        self.after = after
        self.about = about
        super().__init__(reason)


class IdibuError(IngestError):
    """idibu did not do what it was asked; `temporary` says whether asking again can help, `code` is fit for logs.

    `detail` is what idibu said, cut and cleaned; it goes to the history a person reads, never to a log.
    """

    code = "idibu-error"
    temporary = True

    def __init__(self, detail: str) -> None:
        self.detail = detail
        super().__init__(detail)


class IdibuRefused(IdibuError):
    """A well-formed answer of idibu that says `failed`; its words are in `detail`."""

    code = "refused"


class IdibuUnauthorized(IdibuError):
    """idibu does not accept the account's hash; no report of this account can pass until it is put right."""

    code = "unauthorized"


class IdibuNotUnderstood(IdibuError):
    """An answer that is not idibu's XML (a proxy's page, an empty body); `detail` names the status and kind, not the URL."""

    code = "not-understood"


class IdibuUnreachable(IdibuError):
    """No answer: the name did not resolve, the connection was refused or broke, or the time ran out."""

    code = "unreachable"
