"""From the sender's connection to idibu's confirmation: ours beside Postfix with a script, and what may wait meanwhile."""

import os
import time
from collections.abc import Callable, Sequence

import endpoint
import load
import processes
import tables
from accepting import Measured, directory, started
from endpoint import Endpoint
from peers import Missing, Peer
from peers.ours import Ours
from peers.postfix import PipedPostfix

MAILS = {60_000: (2_000, 120), 500_000: (500, 100), 5_000_000: (60, 40)}
"""How many of each size are sent for one measurement: to ours, and to Postfix."""

PATIENCE = 300.0

Make = Callable[[str], Peer]


AS_POSTFIX = {
    "top": "worker_processes = 2\n",
    "worker": "[worker]\nconcurrency = 25\nreport_concurrency = 20\n",
    "account": "concurrency = 20\n",
}
"""As many hand-offs at a time as Postfix gives one destination (default_destination_concurrency_limit), and reports, by two
workers: Postfix starts a process for each."""


def noop(url: str, **sections: str) -> Ours:
    """Ours with a handler that does nothing."""
    return Ours("apptrack-ingest, no-op handler", handler="ats:Noop", endpoint=url, **(sections or AS_POSTFIX))


def by_default(url: str) -> Ours:
    """The same with everything at its default: one worker, four hand-offs and four reports at a time."""
    return Ours("apptrack-ingest, no-op handler, 4 at a time", handler="ats:Noop", endpoint=url)


def folder(url: str) -> Ours:
    """Ours with the folder handler, which syncs all that it writes."""
    return Ours("apptrack-ingest, folder handler", endpoint=url, **AS_POSTFIX)


SYSTEMS: tuple[Make, ...] = (PipedPostfix, noop, by_default, folder)


def wait_until(reached: Callable[[], bool], words: str, seconds: float = PATIENCE, every: float = 0.05) -> None:
    """Raises RuntimeError when it takes too long."""
    deadline = time.monotonic() + seconds
    while not reached():
        if time.monotonic() > deadline:
            raise RuntimeError(f"not reached in {seconds:g} seconds: {words}")
        time.sleep(every)


def measure(make: Make, size: int, many: int) -> Measured:
    """Sends `many` applications and waits until all are reported. Raises RuntimeError when one is lost."""
    with endpoint.serving() as told, started(make(told.url)) as peer:
        load.own(peer.port, size, 20)
        wait_until(lambda: told.told() >= 20, f"{peer.name}: the first 20 are reported")
        os.sync()
        before, cpu = time.perf_counter(), processes.cpu_seconds(*peer.roots)
        sent = load.own(peer.port, size, many)
        wait_until(lambda: told.told() >= many + 20, f"{peer.name}: all are reported")
        seconds = time.perf_counter() - before
        spent = processes.cpu_seconds(*peer.roots) - cpu
        check(peer, many + 20)
        return Measured(many / seconds, spent / many, sent)


def check(peer: Peer, many: int) -> None:
    """The ledger agrees with what was sent. Raises RuntimeError when it does not."""
    if isinstance(peer, Ours):
        wait_until(
            lambda: peer.reports() == {"confirmed": many} and peer.states() == {"delivered": many},
            f"{peer.name}: {many} delivered and confirmed",
            30.0,
        )


def throughput(sizes: Sequence[int], rounds: int, share: float) -> None:
    """Prints the table for each size."""
    for size in sizes:
        ours, theirs = (max(10, int(many * share)) for many in MAILS[size])
        results: dict[str, list[Measured]] = {}
        for _ in range(rounds):
            for make in SYSTEMS:
                name = make("http://127.0.0.1:9").name
                try:
                    results.setdefault(name, []).append(measure(make, size, theirs if make is PipedPostfix else ours))
                except Missing as missing:
                    print(f"NOT MEASURED: {name}: {missing}", flush=True)
        tables.title(f"End to end, {tables.SIZES[size]}: {rounds} rounds of {ours} applications ({theirs} of Postfix)")
        _table({name: runs for name, runs in results.items() if runs})


def _table(results: dict[str, list[Measured]]) -> None:
    reference, rows = results.get(PipedPostfix.name), []
    for name, runs in results.items():
        pairs = list(zip(runs, reference or [], strict=False))
        ratio = tables.middle([run.per_second / other.per_second for run, other in pairs])
        rate, cpu = tables.middle([run.per_second for run in runs]), tables.middle([run.cpu for run in runs])
        rows.append((name, tables.rate(rate), tables.times(ratio), tables.milliseconds(cpu)))
    tables.table(("", "applications a second", "times Postfix + script", "CPU ms each"), rows)


# --- an ATS that takes its time ---------------------------------------------------------------------------------------

ANSWERS_AFTER = 0.2
AT_A_TIME = 50


def waiting(share: float) -> None:
    """Hand-offs a second to an ATS that answers after 200 ms, 50 at a time: 250 are what there can be."""
    many, most = max(100, int(3_000 * share)), AT_A_TIME / ANSWERS_AFTER
    tables.title(f"An ATS that answers after {ANSWERS_AFTER:g} s, {AT_A_TIME} at a time: {many} applications of 60 KB")
    rows = []
    with endpoint.serving(after=ANSWERS_AFTER) as ats:
        webhook = f'url = "{ats.url}"\n'
        cases = (
            ("a handler that waits", "ats:Waits", "", 1),
            ("the webhook handler", "webhook", webhook, 1),
            ("the webhook handler, 2 workers", "webhook", webhook, 2),
        )
        for name, handler, settings, workers in cases:
            for when, before in (("all are there already", True), ("they come as fast as they are taken", False)):
                per_second = _while_it_waits(name, handler, settings, many, before=before, workers=workers)
                rows.append((f"{name}, {when}", tables.rate(per_second), f"{per_second / most:.1%}"))
    tables.table(("", "hand-offs a second", "of the most there can be"), rows)


def _while_it_waits(name: str, handler: str, settings: str, many: int, *, before: bool, workers: int = 1) -> float:
    """Hand-offs a second, the first and the last tenth of them left out; with `before` an intake alone takes all mails
    before there is a worker. The worker has room to read ahead, a quarter more than the ATS is asked at a time."""

    def ours(only: str | None = None) -> Ours:
        return Ours(
            name,
            only=only,
            handler=handler,
            endpoint=idibu.url,
            top=f"worker_processes = {workers}",
            worker=f"[worker]\nconcurrency = {AT_A_TIME + AT_A_TIME // 4}",
            account=f"concurrency = {AT_A_TIME}\n",
            handler_settings=settings,
        )

    with endpoint.serving() as idibu, directory() as home:
        if before:
            with started(ours("intake"), home) as intake:
                load.own(intake.port, 60_000, many)
        with started(ours(), home) as peer:
            if not before:
                load.own(peer.port, 60_000, many)
            wait_until(lambda: idibu.told() >= many, "all are reported")
            check(peer, many)
            assert isinstance(peer, Ours)
            ends = sorted(peer.delivered_at())
    first, last = len(ends) // 10, len(ends) * 9 // 10
    return (last - first) / (ends[last] - ends[first])


# --- at rest ----------------------------------------------------------------------------------------------------------


def idle(seconds: float, mails: int) -> None:
    """CPU of all processes while nothing comes, and how long a lone mail takes to the end of its hand-off."""
    with endpoint.serving() as idibu, started(noop(idibu.url)) as peer:
        load.own(peer.port, 60_000, 5, rate=5.0)
        time.sleep(min(5.0, seconds))
        before = processes.tree(*peer.roots)
        time.sleep(seconds)
        after = processes.tree(*peer.roots)
        load.own(peer.port, 60_000, mails, rate=5.0)
        wait_until(lambda: idibu.told() >= mails + 5, "all are reported")
        assert isinstance(peer, Ours)
        spans = peer.hand_offs()
    tables.title(f"At rest: {seconds:g} seconds without mail, then {mails} mails of 60 KB, five a second")
    share = sum(after.values()) - sum(before.get(pid, 0.0) for pid in after)
    shares = ", ".join(f"{(after[pid] - before.get(pid, 0.0)) / seconds:.2%}" for pid in sorted(after))
    rows = [
        ("CPU of all processes, of one core", f"{share / seconds:.2%} ({shares})"),
        ("received to handed off, p50", f"{tables.milliseconds(tables.middle(spans))} ms"),
        ("received to handed off, p99", f"{tables.milliseconds(tables.percentile(spans, 99))} ms"),
    ]
    tables.table(("", ""), rows)


# --- at 80 % ----------------------------------------------------------------------------------------------------------


def backlog(share: float) -> bool:
    """What waits in each stage while 80 % of the sustained rate comes in. False when it grows to the end, twice in a row:
    the machine may have become slower since the rate was measured."""
    return any(_keeps_up(share) for _ in range(2))


def _keeps_up(share: float) -> bool:
    # Over many, and just before: what a burst of some seconds is worked off at says little.
    rate = 0.8 * measure(noop, 60_000, max(20, int(8_000 * share))).per_second
    seconds = max(3.0, 60 * share)
    many, seen = max(20, int(rate * seconds)), []
    with endpoint.serving() as idibu, started(noop(idibu.url)) as peer:
        assert isinstance(peer, Ours)
        sending = load.running(peer.port, 60_000, many, rate=rate)
        began = time.monotonic()
        while not sending.is_over():
            seen.append(_waiting(peer, idibu))
            time.sleep(min(1.0, seconds / 20))
        took = time.monotonic() - began
        sending.result()
        wait_until(lambda: idibu.told() >= many, "all are reported")
        check(peer, many)
    tables.title(f"At 80 % of the sustained rate: {rate:,.0f} applications a second of 60 KB for {took:.0f} seconds")
    return _backlog_table(seen, rate)


def _waiting(peer: Ours, idibu: Endpoint) -> tuple[int, int]:
    """Applications without an outcome, reports not confirmed."""
    return peer.states().get("received", 0), peer.reports().get("due", 0)


def _backlog_table(seen: list[tuple[int, int]], rate: float) -> bool:
    """Whether in the end no more waits than comes in within a second, or hardly more than before."""
    quarters = [seen[len(seen) * part // 4 : len(seen) * (part + 1) // 4] or seen[-1:] for part in range(4)]
    rows, bounded = [], True
    for stage, name in enumerate(("to be handed off", "to be reported")):
        middles = [tables.middle([look[stage] for look in quarter]) for quarter in quarters]
        rows.append((name, *(f"{value:.0f}" for value in middles)))
        bounded = bounded and middles[3] <= max(1.1 * middles[2], rate)
    tables.table(("waiting, median of each quarter", "1st", "2nd", "3rd", "4th"), rows)
    print("bounded: yes" if bounded else "bounded: NO, it grows", flush=True)
    return bounded
