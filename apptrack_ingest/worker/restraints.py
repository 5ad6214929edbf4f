"""What a worker may claim now: each account within its restraint, no account and no stranger at the cost of another."""

import random
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager

from apptrack_ingest import logs, metrics
from apptrack_ingest.handoff import Outcome
from apptrack_ingest.spool.contract import Claim
from apptrack_ingest.worker.breaker import Change, Key, Opened
from apptrack_ingest.worker.desk import Clock, Desk
from apptrack_ingest.worker.restraint import Restraint
from apptrack_ingest.worker.sharing import Calls

log = logs.get("worker")

UNROUTED = ""
"""What applications without an account count as."""

OVER_FREE = 3
"""With several accounts, each has at most so many times as many applications under way as places are left free: one that is
slow takes three quarters of the places, two take three sevenths each, and there is always a place for the next one's first
(a dynamic threshold, as switches share their buffers by: Choudhury and Hahne, 1998)."""

TELL_AGAIN = 60.0
"""Seconds after which it is told once more that an account's hand-offs go on."""


class Restraints:
    """The restraints of all accounts of one worker. Each worker keeps its own: what it learns of an ATS it learns from its
    own calls, and nothing has to be agreed upon (docs/never-stuck.md says what that means for several workers)."""

    def __init__(self, places: int, clock: Clock, jitter: Callable[[], float] = random.random) -> None:
        self._places = places
        self._calls = Calls()
        self._clock = clock
        self._jitter = jitter
        self._of: dict[str, Restraint] = {}
        self._gone: dict[str, Restraint] = {}
        """Of accounts that a reload took out: what is under way and was called counts should they come back."""
        self._desks: Mapping[str, Desk] = {}
        self._under_way: dict[Key, Claim] = {}
        self._told: dict[str, tuple[float, float]] = {}
        """What `rest_to_tell` said last of an account, and when."""

    def configure(self, desks: Mapping[str, Desk]) -> None:
        """Takes up changed accounts; an account that did not change keeps what is known of its ATS."""
        for name, desk in desks.items():
            if name in self._gone:
                self._of[name] = self._gone.pop(name)
            if name not in self._of:
                self._of[name] = Restraint(desk.concurrency, desk.rates, desk.caution)
            elif desk is not self._desks.get(name):
                self._of[name].configure(desk.concurrency, desk.rates, desk.caution)
            metrics.breaker(name, is_open=self._of[name].breaker.is_open)
        for gone in self._of.keys() - desks.keys():
            self._gone[gone] = self._of.pop(gone)
            metrics.breaker(gone, is_open=False)
        for name, desk in self._desks.items():
            if desks.get(name) is not desk:  # what was only claimed ahead need not go to the old handler
                self._calls.turn_away(name)
                self._told.pop(name, None)
        self._desks = dict(desks)
        self._calls.configure({name: desk.concurrency for name, desk in desks.items()})

    # -- what may be claimed

    @property
    def free(self) -> int:
        """How many places are free."""
        return max(0, self._places - len(self._under_way))

    @property
    def at_once(self) -> int:
        """How many may be claimed before `room` must be asked again, since it is less with each."""
        return self.free if len(self._of) < 2 else min(self.free, max(1, OVER_FREE * self.free // (OVER_FREE + 1)))

    def room(self) -> dict[str, int]:
        """How many more applications of each account may be claimed; what belongs to none counts as an account."""
        now, running = self._clock.now(), Counter(claim.account or UNROUTED for claim in self._under_way.values())
        room = {UNROUTED: self._places_for(running[UNROUTED])}
        for name, restraint in self._of.items():
            room[name] = min(restraint.room(now), self._places_for(running[name]))
            metrics.rationed(name, is_rationed=restraint.is_rationed(now))
        return room

    def _places_for(self, running: int) -> int:
        """How many of the free places are for an account with so many under way."""
        if len(self._of) < 2:
            return self.free
        first = 1 if not running and self.free else 0
        return max(first, (OVER_FREE * self.free - running) // (OVER_FREE + 1))

    @property
    def untrusted_room(self) -> int:
        """How many more applications may be claimed that nobody vouches for: half of the places are not theirs."""
        strangers = sum(not (claim.trusted or claim.vouched) for claim in self._under_way.values())
        return max(0, max(1, self._places // 2) - strangers)

    def opens_at(self) -> float | None:
        """When an account that has no room now will have some by time alone."""
        now = self._clock.now()
        return min((t for one in self._of.values() if (t := one.opens_at(now)) is not None), default=None)

    # -- what becomes of it

    def claimed(self, claim: Claim) -> None:
        """An application was claimed."""
        self._under_way[_key(claim)] = claim
        if restraint := self._restraint_of(claim):
            restraint.claimed(_key(claim))

    def turn(self, claim: Claim) -> AbstractAsyncContextManager[None]:
        """Waits until its handler may be called, which is to be done within. Raises TurnedAway where it is entered."""
        return self._calls.turn(claim.account or UNROUTED)

    def calling(self, claim: Claim) -> None:
        """Its handler is called now."""
        if restraint := self._restraint_of(claim):
            restraint.calling(_key(claim), self._clock.now())

    def drain(self) -> None:
        """Whoever waits for a call gives its claim back: at the end none is begun that need not be."""
        self._calls.end()

    def answered(self, claim: Claim, outcome: Outcome) -> None:
        """What came of its call."""
        account = claim.account or UNROUTED
        if restraint := self._restraint_of(claim):
            was_open = restraint.breaker.is_open
            change = restraint.answered(_key(claim), outcome, self._clock.now(), self._jitter())
            if isinstance(change, Opened):  # what was only claimed ahead need not meet the same
                self._calls.turn_away(account)
            if change is not None and account in self._of:
                _tell(account, change, was_open=was_open)

    def rest_to_tell(self, claim: Claim, *, verdict: bool) -> float | None:
        """Until when its account's hand-offs rest, 0.0 where there was a verdict and they do not; None where this worker has
        told so already. That they do not it tells again now and then, for another may have told otherwise, and be gone."""
        account, now = claim.account or UNROUTED, self._clock.now()
        restraint, (told, at) = self._of.get(account), self._told.get(account, (None, 0.0))
        rests = restraint.breaker.probes_at(now) if restraint else None
        if rests is None:
            if not verdict or (told == 0.0 and at <= now < at + TELL_AGAIN):
                return None
        elif rests == told:
            return None
        self._told[account] = rests or 0.0, now
        return rests or 0.0

    def not_told(self, claim: Claim) -> None:
        """What `rest_to_tell` said could not be passed on."""
        self._told.pop(claim.account or UNROUTED, None)

    def ended(self, claim: Claim) -> None:
        """It is no longer worked on."""
        self._under_way.pop(_key(claim), None)
        if restraint := self._restraint_of(claim):
            restraint.ended(_key(claim))

    def _restraint_of(self, claim: Claim) -> Restraint | None:
        account = claim.account or UNROUTED
        return self._of.get(account) or self._gone.get(account)


def _key(claim: Claim) -> Key:
    return claim.application_id, claim.token


def _tell(account: str, change: Change, *, was_open: bool) -> None:
    """Records a change of the breaker; one line where it opens and one where it closes."""
    if isinstance(change, Opened):
        metrics.breaker_opened(account, change.code)
        level = log.debug if was_open else log.warning
        level("hand-offs rest", account=account, code=change.code, seconds=round(change.seconds, 1))
    else:
        log.info("hand-offs go on", account=account)
    metrics.breaker(account, is_open=isinstance(change, Opened))
