"""What is meant for all worker processes of a `serve` is divided among them: nothing is lost, nothing is there twice."""

import pytest

from apptrack_ingest.lifecycle import Rate, parse_schedule
from apptrack_ingest.service import working
from apptrack_ingest.service.part import WHOLE, Part
from apptrack_ingest.settings import Settings
from apptrack_ingest.worker.desk import Desk

NAMES = [f"account-{number}" for number in range(40)]


def parts(of: int) -> list[Part]:
    return [Part.read(f"{number}/{of}") for number in range(1, of + 1)]


def desk(concurrency: int, *rates: Rate) -> Desk:
    return Desk(None, "", 1.0, parse_schedule("1m"), concurrency=concurrency, rates=rates)


@pytest.mark.parametrize("of", [1, 2, 3, 7, 64])
@pytest.mark.parametrize("total", [0, 1, 2, 5, 64, 1000])
def test_the_parts_are_the_whole(of, total):
    for first in range(of):
        shares = [part.share(total, first) for part in parts(of)]
        assert sum(shares) == total and max(shares) - min(shares) <= 1


@pytest.mark.parametrize("of", [1, 2, 3, 5])
@pytest.mark.parametrize("concurrency", [1, 4, 50])
def test_all_together_keep_to_an_accounts_limits(of, concurrency):
    given = desk(concurrency, Rate(100, 60.0), Rate(3, 1.0))
    for name in NAMES:
        desks = [part.restrained(name, given) for part in parts(of)]
        working_ones = [one for one in desks if one.concurrency]
        assert working_ones, "somebody does its work"
        assert sum(one.concurrency for one in desks) <= concurrency
        for index, rate in enumerate(given.rates):
            assert sum(one.rates[index].count for one in working_ones) <= rate.count
            assert {one.rates[index].seconds for one in desks} == {rate.seconds}


def test_a_single_place_is_given_to_one_of_them_and_not_always_the_same():
    holders = []
    for name in NAMES:
        shares = [part.restrained(name, desk(1)).concurrency for part in parts(3)]
        assert sorted(shares) == [0, 0, 1]
        holders.append(shares.index(1))
    assert set(holders) == {0, 1, 2}


def test_a_rate_of_less_than_one_for_each_leaves_some_without_work():
    for name in NAMES:
        desks = [part.restrained(name, desk(8, Rate(1, 60.0))) for part in parts(2)]
        assert sorted(one.concurrency for one in desks) == [0, 4]
        assert [one.rates for one in desks if one.concurrency] == [(Rate(1, 60.0),)]


def test_one_alone_has_everything():
    given = desk(4, Rate(5, 60.0))
    assert WHOLE.restrained("acme", given) == given and WHOLE.share(7) == WHOLE.some(7) == 7


def test_a_workers_own_numbers_are_divided_too(tmp_path):
    found = Settings(
        data_dir=tmp_path,
        worker={"concurrency": 9, "report_concurrency": 1, "memory": 100_000_000, "parse_processes": 2},
    )
    options = [working.options_of(found, "name", part) for part in parts(2)]
    assert [one.concurrency for one in options] == [5, 4]
    assert [one.report_concurrency for one in options] == [1, 1], "none can be without"
    assert [one.parsers for one in options] == [1, 1] and [one.memory for one in options] == [50_000_000] * 2
