"""Where the spool is, and opening it: all that most commands need of the service, so that they start at once."""

from apptrack_ingest.settings import Settings
from apptrack_ingest.spool.contract import Spool
from apptrack_ingest.spool.opening import Where, open_spool


def where(found: Settings) -> Where:
    """Where the spool is."""
    return found.database if found.spool_url is None else found.spool_url


def spool_of(found: Settings) -> Spool:
    """The spool, opened; see `opening.open_spool`. Its `prepare` tells whether it can be used."""
    return open_spool(where(found))
