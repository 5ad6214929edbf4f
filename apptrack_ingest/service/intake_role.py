"""The intake as a process: wired, run until told to stop, and reloaded on SIGHUP."""

import asyncio
import socket
import time
from collections.abc import Sequence
from pathlib import Path

from apptrack_ingest import logs, metrics
from apptrack_ingest.receive.budget import Budget
from apptrack_ingest.receive.deciding import Decider
from apptrack_ingest.receive.listener import Listener
from apptrack_ingest.receive.neighbours import Neighbours
from apptrack_ingest.receive.pressure import Pressure
from apptrack_ingest.receive.rates import Doorkeeper
from apptrack_ingest.receive.reception import Hooks, Reception, Spooled
from apptrack_ingest.service import activated, intake
from apptrack_ingest.service.activated import Activated
from apptrack_ingest.service.around import own_pages, signals, usable
from apptrack_ingest.service.freeing import give_back_memory, keep_what_was_made
from apptrack_ingest.service.link import ChildLink
from apptrack_ingest.service.place import spool_of
from apptrack_ingest.settings import Listener as SettingsListener
from apptrack_ingest.settings import Settings
from apptrack_ingest.spool.contract import Spool

log = logs.get("service")

TELL_EVERY = 5.0
"""Seconds between two looks at what no event tells."""


async def run_intake(
    path: Path | None,
    found: Settings,
    link: ChildLink,
    *,
    own_web: bool,
    sockets: Activated | None = None,
    of: int = 1,
    neighbours: Neighbours | None = None,
) -> None:
    """Listens until SIGTERM (or the supervisor's end), then drains. `sockets` are those that systemd or the supervisor
    opened; it is one of `of` intakes on them, takes its part of the limits, and passes connections on to `neighbours`."""
    places = activated.by_listener(found, sockets or {})
    intake.room_for_connections(found)
    give_back_memory()
    spool = spool_of(found)
    parts = _IntakeParts(found, spool, of, neighbours)
    listener = parts.listener
    async with (
        signals(path, found, parts.take_up) as stop,
        own_pages(lambda: parts.present, spool, "intake", own_web) as web_port,
    ):
        link.start(stop.set)  # before the spool, whose schema may take long to be brought up to date
        await usable(spool)
        await parts.pressure.refresh()
        await parts.listen(places)
        watching = [asyncio.create_task(parts.pressure.watch()), asyncio.create_task(parts.tell())]
        keep_what_was_made()
        link.ready(smtp=[list(address) for address in listener.addresses], web=web_port)
        log.info("listening", smtp=[f"{host}:{port}" for host, port in listener.addresses])
        await stop.wait()
        cut_off = await listener.drain(parts.present.smtp.drain_timeout)
        log.info("drained", cut_off=cut_off)
        for task in watching:
            task.cancel()
        await asyncio.gather(*watching, return_exceptions=True)
    await parts.close()
    await spool.close()
    link.stop()


class _IntakeParts:
    """An intake and all that it works with, wired from the settings."""

    def __init__(self, found: Settings, spool: Spool, of: int, neighbours: Neighbours | None) -> None:
        self.present = found
        self._of = of
        trust = intake.trust_of(found)
        self._judge = intake.judge_of(found)
        self._doorkeeper = Doorkeeper(intake.caps_of(found, of), trust.lists, time.monotonic)
        self._budget = Budget(*intake.budget_of(found))
        self.pressure = Pressure(intake.floors_of(found), spool.load, intake.room_on_disk(found), clock=time.monotonic)
        self._decider = Decider(
            intake.directory_of(found),
            self._judge,
            trust=trust,
            limits=intake.limits_of(found),
            pressure=self.pressure,
            doorkeeper=self._doorkeeper,
        )
        reception = Reception(
            spool.put, self._decider, clock=time.time, hostname=intake.hostname_of(found), hooks=_HOOKS
        )
        self._tls = intake.tls_of(found)
        users = intake.users_of(found)
        self.listener = Listener(reception, tls=self._tls, users=users, budget=self._budget, neighbours=neighbours)

    async def take_up(self, new: Settings) -> None:
        """A reload: open sessions go on with what they began with."""
        trust = intake.trust_of(new)
        self._decider.configure(intake.directory_of(new), trust, intake.limits_of(new))
        self._doorkeeper.configure(intake.caps_of(new, self._of), trust.lists)
        self._budget.configure(*intake.budget_of(new))
        intake.room_for_connections(new)
        self.pressure.configure(intake.floors_of(new))
        self.listener.users = intake.users_of(new)
        self.present = new

    async def listen(self, places: Sequence[tuple[SettingsListener, Sequence[socket.socket]]]) -> None:
        """Listens at every place. Raises ConfigError for one that cannot be had."""
        for one, sockets in places:
            entry = intake.entry_of(self.present, one)
            try:
                for sock in sockets:
                    await self.listener.serve(sock, entry, shared=True)
                if not sockets:
                    await self.listener.start(one.host, one.port, entry)
            except OSError as error:
                raise intake.cannot_listen(self.present, one, error) from None
        self.listener.meet_neighbours()

    async def tell(self) -> None:
        """Shows every few seconds what no event tells: bytes in flight, and when the certificate ends."""
        while True:
            metrics.bytes_in_flight(self._budget.in_use)
            if self._tls is not None:
                self._tls.refresh()
                metrics.certificate_ends(self._tls.expires_at)
            await asyncio.sleep(TELL_EVERY)

    async def close(self) -> None:
        """Ends what was started beside the sessions."""
        await self._judge.close()


def _spooled(mail: Spooled) -> None:
    accounts = [arrival.account for arrival in mail.arrivals]
    trusted = any(arrival.trusted for arrival in mail.arrivals)
    metrics.received(accounts, trusted=trusted, at=mail.received_at)
    logs.received(
        message_id=mail.message_id,
        accounts=accounts,
        applicant_ids=[arrival.applicant_id for arrival in mail.arrivals],
        trusted=trusted,
        size=mail.size,
        seconds=mail.seconds,
    )


_HOOKS = Hooks(
    reply=metrics.replied,
    accept=metrics.accepted,
    spooled=_spooled,
    judged=metrics.judged,
    limited=metrics.limited,
    session_opened=metrics.session_opened,
    session_closed=metrics.session_closed,
    ungreeted=metrics.ungreeted,
)
