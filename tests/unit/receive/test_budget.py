"""The budget of bytes in flight: in turn, without lost wake-ups, and without two mails blocking each other."""

import asyncio
import random

import pytest

from apptrack_ingest.receive.budget import Budget, Share

PATIENCE = 10.0


@pytest.fixture
def budget() -> Budget:
    return Budget(100)


NORTH, SOUTH = b"north", b"south"


@pytest.fixture
def divided() -> Budget:
    """Half of it is for strangers, three tenths for each network."""
    return Budget(100, 0.5, 0.3)


async def waiting(share: Share, count: int, timeout: float = PATIENCE) -> asyncio.Task[bool]:
    """A task that waits for its turn by now, unless that came at once."""
    task = asyncio.create_task(share.wait(count, timeout))
    await asyncio.sleep(0)
    return task


async def turns(*tasks: asyncio.Task[bool]) -> list[bool]:
    """Which of them had their turn, once all that is due has happened."""
    for _ in range(5):
        await asyncio.sleep(0)
    return [task.done() and task.result() for task in tasks]


def test_takes_what_there_is_and_gives_it_back(budget):
    one, other = budget.share(), budget.share()
    assert one.take(60) and not other.take(41) and other.take(40)
    assert (budget.in_use, one.held, other.held) == (100, 60, 40)
    one.give_back(20)
    assert other.take(20) and not other.take(1)
    one.close()
    one.close()
    assert (budget.in_use, one.held) == (60, 0)


def test_nobody_gives_back_what_he_has_not(budget):
    one = budget.share()
    assert one.take(10)
    for count in (11, -1):
        with pytest.raises(ValueError, match="more given back"):
            one.give_back(count)
    assert budget.in_use == 10


def test_a_mail_that_is_alone_may_be_larger_than_the_budget(budget):
    one, other = budget.share(), budget.share()
    assert one.take(90) and one.take(500)
    assert not other.take(1)
    one.close()
    assert other.take(500)


async def test_waits_until_there_is_room(budget):
    one, other = budget.share(), budget.share()
    assert one.take(90)
    task = await waiting(other, 20)
    one.give_back(5)
    assert await turns(task) == [False]
    one.give_back(5)
    assert await turns(task) == [True]
    assert (budget.in_use, other.held) == (100, 20)


async def test_first_come_first_served(budget):
    holder = budget.share()
    assert holder.take(100)
    large, small = await waiting(budget.share(), 50), await waiting(budget.share(), 10)
    holder.give_back(20)
    assert await turns(large, small) == [False, False], "who wants little does not overtake who wants much"
    assert not budget.share().take(1), "nor does who comes later"
    holder.give_back(30)
    assert await turns(large, small) == [True, False]
    holder.give_back(50)
    assert await turns(large, small) == [True, True]


async def test_one_return_serves_all_it_is_enough_for(budget):
    holder = budget.share()
    assert holder.take(100)
    tasks = [await waiting(budget.share(), 30) for _ in range(5)]
    holder.close()
    assert await turns(*tasks) == [True, True, True, False, False]
    assert budget.in_use == 90
    for task in tasks[3:]:
        task.cancel()


async def test_who_waited_in_vain_has_taken_nothing(budget):
    holder, late = budget.share(), budget.share()
    assert holder.take(100)
    assert await late.wait(10, timeout=0) is False
    assert (late.held, budget.in_use, len(budget._waiting)) == (0, 100, 0)
    holder.close()
    assert budget.in_use == 0
    assert await late.wait(10, timeout=0) is True


async def test_who_leaves_lets_those_behind_him_go_on(budget):
    holder = budget.share()
    assert holder.take(50)
    large, small = await waiting(budget.share(), 90), await waiting(budget.share(), 10)
    large.cancel()
    assert await asyncio.wait_for(small, PATIENCE)
    assert budget.in_use == 60


async def test_who_gives_up_lets_those_behind_him_go_on(budget):
    holder = budget.share()
    assert holder.take(50)
    large, small = await waiting(budget.share(), 90, timeout=0.001), await waiting(budget.share(), 10)
    assert await asyncio.wait_for(small, PATIENCE)
    assert not await asyncio.wait_for(large, PATIENCE)
    assert budget.in_use == 60


async def test_cancelled_after_its_turn_came_gives_it_back(budget):
    holder, gone = budget.share(), budget.share()
    assert holder.take(100)
    first, second = await waiting(gone, 80), await waiting(budget.share(), 90)
    holder.close()
    assert gone.held == 80
    first.cancel()
    assert await asyncio.wait_for(second, PATIENCE)
    assert (gone.held, budget.in_use) == (0, 90)


async def test_closed_while_it_waits_it_waits_no_longer(budget):
    holder, gone = budget.share(), budget.share()
    assert holder.take(60) and gone.take(40)
    first, second = await waiting(gone, 80), await waiting(budget.share(), 40)
    gone.close()
    assert await turns(first, second) == [False, True]
    assert first.done() and (gone.held, budget.in_use) == (0, 100)


async def test_closed_and_cancelled_at_once_it_gives_back_no_more_than_it_had(budget):
    holder, gone = budget.share(), budget.share()
    assert holder.take(100)
    task = await waiting(gone, 80)
    holder.close()
    assert gone.held == 80
    task.cancel()
    gone.close()
    assert (await asyncio.gather(task, return_exceptions=True))[0].__class__ is asyncio.CancelledError
    assert budget.in_use == 0


async def test_mails_that_all_wait_do_not_block_each_other(budget):
    one, other = budget.share(), budget.share()
    assert one.take(50) and other.take(50)
    later = await waiting(other, 30)
    assert await turns(later) == [False], "somebody may give back yet"
    assert await one.wait(30, timeout=0) is True, "the one that began first goes on"
    assert await turns(later) == [False]
    one.close()
    assert await turns(later) == [True]


async def test_one_mail_at_a_time_goes_over_the_budget(budget):
    one, other, idle = budget.share(), budget.share(), budget.share()
    assert one.take(50) and other.take(50)
    tasks = [await waiting(idle, 500), await waiting(other, 30), await waiting(one, 30)]
    assert await turns(*tasks) == [False, False, True]
    tasks[2] = await waiting(one, 30)
    assert await turns(*tasks) == [False, False, True], "still the same one"
    assert budget.in_use == 160
    one.close()
    assert await turns(*tasks) == [False, True, True]
    other.close()
    assert await turns(*tasks) == [True, True, True], "a mail larger than the budget, when it is alone"


async def test_a_larger_limit_serves_those_who_wait(budget):
    holder = budget.share()
    assert holder.take(100)
    task = await waiting(budget.share(), 50)
    budget.configure(150)
    assert await turns(task) == [True]


# --- strangers and their networks ---------------------------------------------------------------------------------


def test_a_network_and_all_strangers_have_their_part_and_no_more(divided):
    one, same, other, listed = divided.share(NORTH), divided.share(NORTH), divided.share(SOUTH), divided.share()
    assert one.take(20) and not same.take(11) and same.take(10)
    assert not other.take(21) and other.take(20)
    assert listed.take(50) and not divided.share().take(1)
    assert divided.in_use == 100
    for share in (one, same, other, listed):
        share.close()
    assert (divided.in_use, divided._used) == (0, {})


def test_a_strangers_mail_that_is_alone_in_its_network_may_be_larger_than_its_part(divided):
    assert divided.share(NORTH).take(45)
    assert not divided.share(NORTH).take(1)
    assert divided.share(SOUTH).take(5)
    assert not divided.share(SOUTH).take(1)


async def test_who_waits_for_its_own_network_keeps_nobody_else_waiting(divided):
    holder, south = divided.share(NORTH), divided.share(SOUTH)
    assert holder.take(30)
    waits = await waiting(divided.share(NORTH), 10)
    assert south.take(20) and divided.share().take(50)
    assert await turns(waits) == [False]
    south.close()
    assert await turns(waits) == [False], "there is room for strangers, not for this network"
    holder.close()
    assert await turns(waits) == [True]


async def test_strangers_in_the_queue_keep_no_listed_peer_waiting(divided):
    listed = divided.share()
    assert listed.take(80) and divided.share(NORTH).take(15)
    stranger = await waiting(divided.share(SOUTH), 20)
    assert divided.share().take(5)
    second = await waiting(divided.share(), 30)
    listed.give_back(30)
    assert await turns(stranger, second) == [False, True], "the listed peer came later"
    listed.close()
    assert await turns(stranger) == [True]


async def test_mails_of_one_network_that_all_wait_do_not_block_each_other(divided):
    first, second = divided.share(NORTH), divided.share(NORTH)
    others = divided.share(SOUTH), divided.share(SOUTH)
    assert first.take(15) and second.take(15) and others[0].take(10) and others[1].take(10)
    later = await waiting(second, 20)
    assert await turns(later) == [False]
    assert not await first.wait(20, timeout=0), "the other network's mails may end yet"
    for share in others:
        share.close()
    assert await first.wait(20, timeout=0), "the one that began first goes on"
    assert await turns(later) == [False]
    first.close()
    assert await turns(later) == [True]


async def test_two_networks_of_which_all_wait_go_on_both(divided):
    budget = Budget(1000, 0.5, 0.02)
    shares = [budget.share(network) for network in (NORTH, NORTH, SOUTH, SOUTH)]
    assert all(share.take(10) for share in shares)
    tasks = [await waiting(share, 10) for share in shares[1::2]]
    assert await turns(*tasks) == [False, False]
    assert [await share.wait(10, timeout=0) for share in shares[::2]] == [True, True]
    for share in shares[::2]:
        share.close()
    assert await turns(*tasks) == [True, True]


async def test_other_shares_serve_those_who_wait(divided):
    assert divided.share(NORTH).take(30)
    task = await waiting(divided.share(NORTH), 10)
    divided.configure(100, 0.5, 0.4)
    assert await turns(task) == [True]


@pytest.mark.parametrize("networks", [(None,), (None, NORTH), (NORTH, SOUTH), (None, NORTH, SOUTH, b"east", b"west")])
@pytest.mark.parametrize("seed", range(10))
async def test_many_mails_all_come_through(seed, networks):
    chance = random.Random(seed)
    budget = Budget(100, 0.5, 0.3) if len(networks) > 1 else Budget(100)
    largest = 150
    highest = 0

    async def mail(chunks: list[int]) -> str:
        nonlocal highest
        share = budget.share(chance.choice(networks))
        try:
            for count in chunks:
                if not share.take(count) and not await share.wait(count, PATIENCE):
                    return "timed out"
                highest = max(highest, budget.in_use)
                if chance.random() < 0.5:
                    await asyncio.sleep(0)
        finally:
            share.close()
        return "through"

    sizes = [[chance.randint(1, 50) for _ in range(chance.randint(1, 3))] for _ in range(100)]
    tasks = [asyncio.create_task(mail(chunks)) for chunks in sizes]
    await asyncio.sleep(0)
    for task in chance.sample(tasks, 20):
        task.cancel()
    ends = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), PATIENCE)
    assert {end for end in ends if isinstance(end, str)} == {"through"}
    assert {type(end) for end in ends if not isinstance(end, str)} <= {asyncio.CancelledError}
    assert budget.in_use == 0 and not budget._waiting and not budget._used
    assert highest < budget.limit + largest
