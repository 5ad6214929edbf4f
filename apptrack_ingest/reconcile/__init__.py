"""Holds the ledger, idibu's statuses and idibu's applicants against each other, and puts right what is ours to say.

`comparing` is pure: what follows from what we said and what idibu shows. `looking` reads both sides in pages, `fixing` makes
reports due again. docs/reconcile.md says what is compared, and what is left alone.
"""

from apptrack_ingest.reconcile.comparing import SETTLING
from apptrack_ingest.reconcile.findings import FIXABLE, MEANING, WRONG, Finding, Kind
from apptrack_ingest.reconcile.fixing import Fixed, fix
from apptrack_ingest.reconcile.looking import Account, Looked, look
from apptrack_ingest.reconcile.pace import USUAL_PACE, Clock, Pace

__all__ = [
    "FIXABLE",
    "MEANING",
    "SETTLING",
    "USUAL_PACE",
    "WRONG",
    "Account",
    "Clock",
    "Finding",
    "Fixed",
    "Kind",
    "Looked",
    "Pace",
    "fix",
    "look",
]
