"""The reader: one thread and one connection for all questions of a process, which hold up no writer and wait for none."""

import asyncio
import queue
import sqlite3
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from apptrack_ingest.errors import SpoolUnavailable
from apptrack_ingest.spool.sqlite.commit import code_of
from apptrack_ingest.spool.sqlite.waiting import Waiting, tell

T = TypeVar("T")
Question = Callable[[sqlite3.Connection], T]


@dataclass(slots=True, kw_only=True)
class _Asked(Waiting):
    """A question, and who waits for its answer."""

    question: Question[Any]


class Reader:
    """Answers questions in its thread, in their order; those that came meanwhile are answered with one wake-up."""

    def __init__(self, connect: Callable[[], sqlite3.Connection]) -> None:
        self._connect = connect
        self._connection: sqlite3.Connection | None = None
        self._asked: queue.SimpleQueue[_Asked | None] = queue.SimpleQueue()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="spool-reader", daemon=True)
        self._thread.start()

    def ask(self, question: Question[T]) -> asyncio.Future[T]:
        """The answer, or what the question raised; SpoolUnavailable where the database is at fault, or closed."""
        if self._closed:
            raise SpoolUnavailable("the spool is closed")
        loop = asyncio.get_running_loop()
        asked = _Asked(loop, loop.create_future(), question=question)
        self._asked.put(asked)
        return asked.future

    async def close(self) -> None:
        """Answers what was asked and ends the thread."""
        if not self._closed:
            self._closed = True
            self._asked.put(None)
        await asyncio.to_thread(self._thread.join)

    # -- in the thread

    def _run(self) -> None:
        while self._answer_all():
            pass
        self._disconnect()

    def _answer_all(self) -> bool:
        """Answers all that was asked until now; False at the end. A mail that was read does not stay in memory until the
        next question comes: nothing of it outlives this call."""
        asked = [self._asked.get()]
        asked += [self._asked.get() for _ in range(self._asked.qsize())]
        questions = [each for each in asked if each is not None]
        for each in questions:
            self._answer(each)
        tell(questions)
        return len(questions) == len(asked)

    def _answer(self, asked: _Asked) -> None:
        if asked.future.cancelled():
            return
        try:
            if self._connection is None:
                self._connection = self._connect()
                self._connection.execute("PRAGMA query_only = ON")
            asked.result = asked.question(self._connection)
        except (sqlite3.Error, OSError) as error:
            self._disconnect()
            asked.error = SpoolUnavailable(f"{type(error).__name__}: {error}", code=code_of(error))
        except BaseException as error:  # noqa: BLE001 - whatever it is, it belongs to who asked
            asked.error = error

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
