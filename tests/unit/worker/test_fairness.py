"""One account's flood delays no other, through the real worker: what waits for another goes on nearly as if alone."""

from pathlib import Path

from worlds import World

from apptrack_ingest.idibu.sandbox import Sandbox, running
from apptrack_ingest.model import Arrival, Envelope, Message
from apptrack_ingest.testing import RecordingHandler, an_email

FLOOD, FEW = 10_000, 10


async def receive(world: World, account: str, number: int, *, first: int) -> None:
    for start in range(first, first + number, 500):
        ids = range(start, min(start + 500, first + number))
        message = Message(Envelope("", ("x@y.example",), "127.0.0.1"), world.clock.time, an_email(start))
        await world.spool.put(message, [Arrival(account, applicant_id, True) for applicant_id in ids])


async def looks_until_handed_off(directory: Path, flood: int) -> tuple[int, int]:
    """How often the worker looks, a second after it is done with what it started the last time, until ten mails for beta
    that came behind a flood for acme are handed off; and how many of acme's were by then."""
    async with running(Sandbox({"hash-a": "acme", "hash-b": "beta"}, None)) as sandbox:
        world = World(directory, sandbox)
        await receive(world, "acme", flood, first=1)
        world.clock.time += 1.0
        await receive(world, "beta", FEW, first=FLOOD + 1)
        acme, beta = (world.handlers[name] for name in ("acme", "beta"))
        assert isinstance(acme, RecordingHandler)
        assert isinstance(beta, RecordingHandler)
        looks = 0
        while len(beta.applications) < FEW:
            looks += 1
            await world.worker.step()
            await world.worker.idle()
            world.clock.time += 1.0
        await world.close()
        return looks, len(acme.applications)


async def test_a_flood_for_one_account_costs_the_other_nothing(tmp_path: Path) -> None:
    (tmp_path / "alone").mkdir()
    alone, _ = await looks_until_handed_off(tmp_path / "alone", 0)
    beside, others = await looks_until_handed_off(tmp_path, FLOOD)
    assert beside <= alone + 1, "two accounts at work leave two of the eight places to a third"
    assert FEW <= others < FLOOD / 10
