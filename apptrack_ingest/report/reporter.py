"""Sends reports for all accounts, and turns whatever idibu or the network does into one of four results."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, tzinfo

from pydantic import SecretStr

from apptrack_ingest.errors import IdibuError, IdibuRefused, IdibuUnauthorized
from apptrack_ingest.idibu.client import Client, IdibuBusy
from apptrack_ingest.idibu.http import Http
from apptrack_ingest.model import Report
from apptrack_ingest.report.xml import to_xml

NO_DESTINATION = "no-destination"
"""The code of a report whose account has no destination (no hash yet, or taken out of the settings)."""


@dataclass(frozen=True, slots=True)
class Destination:
    """Where an account's reports go: idibu's base URL, the hash, seconds a call may take, the time zone of dates."""

    base_url: str
    hash: SecretStr
    timeout: float = 30.0
    timezone: tzinfo = UTC


@dataclass(frozen=True, slots=True)
class Confirmed:
    """idibu's XML said success."""


@dataclass(frozen=True, slots=True)
class Refused:
    """A well-formed `failed` of idibu; `detail` are its words, for the history, never for a log."""

    code: str
    detail: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Unauthorized:
    """idibu does not take the account's hash: its other reports would fare no better."""

    detail: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class NotReached:
    """Nothing was said that settles it; try again, and not before `after` seconds when idibu asked for that."""

    code: str
    detail: str = field(repr=False)
    after: float | None = None


Result = Confirmed | Refused | Unauthorized | NotReached


class Reporter:
    """Sends each report to its account's destination over connections all accounts share.

    Deciding when to send, and again, is the worker's; sending twice does no harm (idibu updates in place).
    """

    def __init__(self, now: Callable[[], float] = time.time) -> None:
        self._http = Http(now)
        self._clients: dict[str, tuple[Client, tzinfo]] = {}

    def configure(self, destinations: Mapping[str, Destination]) -> None:
        """Replaces all destinations, by account; reports under way go on to where they were sent.

        Raises ValueError for a base URL that is none or an empty hash; the destinations then stay as they were.
        """
        self._clients = {account: (self._client(d), d.timezone) for account, d in destinations.items()}

    async def send(self, account: str, report: Report) -> Result:
        """Sends one report, once. Raises nothing for what idibu or the network does."""
        if account not in self._clients:
            return NotReached(NO_DESTINATION, "the account has no hash to report with")
        client, timezone = self._clients[account]
        try:
            await client.post_status(report.applicant_id, to_xml(report, timezone))
        except IdibuError as error:
            return _result(error)
        return Confirmed()

    async def close(self) -> None:
        """Closes the connections; what is under way ends as not reached, and so does everything after."""
        await self._http.close()

    def _client(self, destination: Destination) -> Client:
        return Client(destination.base_url, destination.hash, destination.timeout, self._http)


def _result(error: IdibuError) -> Result:
    match error:
        case IdibuUnauthorized():
            return Unauthorized(error.detail)
        case IdibuRefused():
            return Refused(error.code, error.detail)
        case IdibuBusy():
            return NotReached(error.code, error.detail, error.after)
        case _:
            return NotReached(error.code, error.detail)
