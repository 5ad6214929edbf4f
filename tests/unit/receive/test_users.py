"""Who may AUTH: hashes, what is refused as one, and that the answer's time tells nothing."""

import asyncio
import hashlib
import threading

import pytest

from apptrack_ingest.receive.users import AT_ONCE, WAITING, TooBusy, Users, make_hash


def cheap(password: str) -> str:
    return make_hash(password, n=4096, p=1)


async def test_the_right_password_and_no_other(users):
    assert await users.check("ann", "pass word")
    for user, password in [("ann", "pass"), ("ann", ""), ("Ann", "pass word"), ("bob", "pass word"), ("", "")]:
        assert not await users.check(user, password)


async def test_characters_count_by_what_they_are_not_how_they_were_typed():
    users = Users({"j\u00fcrgen": cheap("stra\u00dfe \u00fc")})
    assert await users.check("ju\u0308rgen", "stra\u00dfe u\u0308")


async def test_what_is_no_text_is_no_password(users):
    assert not await users.check("ann", "\udcff")


async def test_nobody_is_known_where_there_are_no_users():
    users = Users({})
    assert not users
    assert not await users.check("ann", "pass word")


def test_a_hash_says_how_it_was_made_and_no_two_are_alike():
    one, two = cheap("same"), cheap("same")
    assert one.startswith("scrypt$4096$8$1$")
    assert one != two
    assert make_hash("x").startswith("scrypt$16384$8$5$")


async def test_an_unknown_user_costs_what_a_known_one_does(monkeypatch):
    users = Users({"ann": make_hash("x", n=8192, p=2)})
    seen = []
    real = hashlib.scrypt

    def remember(*args, **wishes):
        seen.append({name: wishes[name] for name in ("n", "r", "p", "dklen")})
        return real(*args, **wishes)

    monkeypatch.setattr(hashlib, "scrypt", remember)
    await users.check("ann", "wrong")
    await users.check("nobody", "wrong")
    assert seen == [{"n": 8192, "r": 8, "p": 2, "dklen": 32}] * 2


async def test_few_at_a_time_and_never_on_the_loop(monkeypatch):
    users = Users({"ann": cheap("x")})
    inside, most, lock = 0, 0, threading.Lock()
    real = hashlib.scrypt

    def count(*args, **wishes):
        nonlocal inside, most
        assert threading.current_thread() is not threading.main_thread()
        with lock:
            inside += 1
            most = max(most, inside)
        try:
            return real(*args, **wishes)
        finally:
            with lock:
                inside -= 1

    monkeypatch.setattr(hashlib, "scrypt", count)
    assert all(await asyncio.gather(*(users.check("ann", "x") for _ in range(12))))
    assert 1 <= most <= AT_ONCE


SALT, DIGEST = "c2FsdHNhbHQ=", "MDEyMzQ1Njc4OTAxMjM0NQ=="


@pytest.mark.parametrize(
    "text",
    [
        "",
        "plain password",
        f"bcrypt$4096$8$1${SALT}${DIGEST}",
        f"scrypt$4096$8${SALT}${DIGEST}",
        f"scrypt$4096$8$1$1${SALT}${DIGEST}",
        f"scrypt$many$8$1${SALT}${DIGEST}",
        f"scrypt$1024$8$1${SALT}${DIGEST}",
        f"scrypt$5000$8$1${SALT}${DIGEST}",
        f"scrypt$-4096$8$1${SALT}${DIGEST}",
        f"scrypt$4096$0$1${SALT}${DIGEST}",
        f"scrypt$4096$8$0${SALT}${DIGEST}",
        f"scrypt$4096$8$17${SALT}${DIGEST}",
        f"scrypt$1048576$8$1${SALT}${DIGEST}",
        f"scrypt$4096$8$1$$${DIGEST}",
        f"scrypt$4096$8$1$c2E=${DIGEST}",
        f"scrypt$4096$8$1${SALT}$c2E=",
        f"scrypt$4096$8$1$?${DIGEST}",
        f"scrypt$4096$8$1${SALT}$\u00fc",
    ],
)
def test_what_is_no_hash_is_refused_by_the_users_name_alone(text):
    with pytest.raises(ValueError, match="user bob: ") as caught:
        Users({"ann": cheap("x"), "bob": text})
    assert not text or text not in str(caught.value)
    assert caught.value.__context__ is None


async def test_the_costliest_hash_allowed_can_be_checked():
    users = Users({"ann": f"scrypt$131072$8$1${SALT}${DIGEST}"})
    assert not await users.check("ann", "x")


async def test_who_comes_when_too_many_wait_is_told_so_at_once(monkeypatch):
    users, gate = Users({"ann": cheap("x")}), threading.Event()
    real = hashlib.scrypt

    def stall(*args, **wishes):
        assert gate.wait(10)
        return real(*args, **wishes)

    monkeypatch.setattr(hashlib, "scrypt", stall)
    tasks = [asyncio.create_task(users.check("ann", "x")) for _ in range(AT_ONCE + WAITING)]
    await asyncio.sleep(0)
    with pytest.raises(TooBusy):
        await users.check("ann", "x")
    tasks.pop().cancel()
    await asyncio.sleep(0)
    tasks.append(asyncio.create_task(users.check("ann", "x")))
    gate.set()
    assert all(await asyncio.gather(*tasks))
    assert await users.check("ann", "x")
