"""The one way to the database: a small pool of connections, transactions, and every fault told as SpoolUnavailable."""

import asyncio
import errno
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeAlias, TypeVar
from urllib.parse import parse_qsl, urlsplit

import asyncpg

from apptrack_ingest.errors import SpoolError, SpoolUnavailable
from apptrack_ingest.settings.spool_url import problem_of
from apptrack_ingest.spool import rows
from apptrack_ingest.spool.postgres.migrations import prepare, version_of

T = TypeVar("T")
Record: TypeAlias = asyncpg.Record
Proxy: TypeAlias = "asyncpg.pool.PoolConnectionProxy[Any]"


@dataclass(frozen=True, slots=True)
class Options:
    """How many connections a process opens, and how long it waits, in seconds: for a connection to be made, for a free one
    of its own, for a lock, for an answer."""

    connections: int = 4
    connect_timeout: float = 5.0
    free_timeout: float = 10.0
    lock_timeout: float = 5.0
    statement_timeout: float = 20.0

    def server_settings(self) -> dict[str, str]:
        """What each connection asks of its server."""
        return {
            "application_name": "apptrack-ingest",
            # The statements are written for it: each sees what was committed before it began (hand_off.claim).
            "default_transaction_isolation": "read committed",
            "statement_timeout": _milliseconds(self.statement_timeout),
            "lock_timeout": _milliseconds(self.lock_timeout),
            # One that stands still or was cut off amid a transaction must not keep its locks from the others.
            "idle_in_transaction_session_timeout": _milliseconds(self.statement_timeout),
            "tcp_keepalives_idle": "15",
            "tcp_keepalives_interval": "5",
            "tcp_keepalives_count": "3",
            # Compiling costs more than any of our statements takes.
            "jit": "off",
            # So does planning: every statement has the one index it is written for, whatever its values, and however few
            # rows there were when the server last counted them.
            "plan_cache_mode": "force_generic_plan",
            "enable_seqscan": "off",
            "enable_hashjoin": "off",
            "enable_mergejoin": "off",
        }


def _milliseconds(seconds: float) -> str:
    return str(max(1, int(seconds * 1000)))


def checked(url: str) -> str:
    """The URL, if it can be one; SpoolError, which repeats nothing of it, if not (a password may stand anywhere in it)."""
    problem = problem_of(url)
    if problem is not None:
        raise SpoolError(f"the spool's URL cannot be used; {problem}")
    return url


# --- statements ------------------------------------------------------------------------------------------------------

_NAME = re.compile(r"(?<!:):([a-z_][a-z0-9_]*)")


@lru_cache(maxsize=256)
def _numbered(sql: str) -> tuple[str, tuple[str, ...]]:
    """The statement as PostgreSQL wants it, `:name` as `$n`, and the names in their order."""
    names = tuple(dict.fromkeys(_NAME.findall(sql)))
    return _NAME.sub(lambda match: f"${names.index(match[1]) + 1}", sql), names


def storable(value: Any) -> Any:
    """The value with U+FFFD for what PostgreSQL cannot keep in a text: lone surrogates and NUL."""
    if isinstance(value, str):
        return rows.storable(value).replace("\0", "\ufffd")
    return [storable(each) for each in value] if isinstance(value, list) else value


class Statements:
    """Runs statements on one connection; their values have names, `:name`, and any text of them can be kept."""

    def __init__(self, connection: "Proxy | asyncpg.Connection[Any]") -> None:
        self._connection = connection

    async def all(self, sql: str, **values: object) -> list[Record]:
        """All rows."""
        text, names = _numbered(sql)
        return await self._connection.fetch(text, *(storable(values[name]) for name in names))

    async def one(self, sql: str, **values: object) -> Record | None:
        """The first row, or None."""
        text, names = _numbered(sql)
        return await self._connection.fetchrow(text, *(storable(values[name]) for name in names))

    async def run(self, sql: str, **values: object) -> int:
        """How many rows it changed."""
        text, names = _numbered(sql)
        done = await self._connection.execute(text, *(storable(values[name]) for name in names))
        return int(done.rpartition(" ")[2])


@asynccontextmanager
async def _transaction(connection: Proxy, **options: Any) -> AsyncIterator[Statements]:
    """Commits at the end of the block, or rolls back; asyncpg's own would wait, and hide the error, where none answers."""
    transaction = connection.transaction(**options)
    await transaction.start()
    try:
        yield Statements(connection)
    except TimeoutError:
        raise
    except BaseException:
        with suppress(*FAULTS):
            await transaction.rollback()
        raise
    await transaction.commit()


Operation = Callable[[Statements], Awaitable[T]]

# --- faults ----------------------------------------------------------------------------------------------------------

FAULTS = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError, TimeoutError, EOFError)

_AGAIN = (asyncpg.DeadlockDetectedError, asyncpg.SerializationError, asyncpg.InvalidCachedStatementError)
"""What a transaction is simply run again for: nothing of it was kept. The last comes of another release's migration."""

TRIES = 4
"""How often a transaction is run before such an error counts."""

_TELLING = ("08", "25", "28", "3D", "3F", "40", "42", "53", "55", "57", "58", "XX")
"""Classes of SQLSTATE whose messages name servers, users, tables and limits, but no values of ours."""


def unavailable(error: BaseException) -> SpoolUnavailable:
    """The error without anything that may hold a password or a candidate's data."""
    return SpoolUnavailable(f"PostgreSQL: {_words(error)}", code=_code(error))


def _code(error: BaseException) -> str:
    """What it is, in one word, for the log."""
    if isinstance(error, TimeoutError):
        return "no-answer-in-time"
    named = errno.errorcode.get(error.errno or 0) if isinstance(error, OSError) else None
    # A name with several addresses, none of which could be reached, is an OSError without a number.
    return named or ("no-connection" if type(error) is OSError else type(error).__name__)


def _words(error: BaseException) -> str:
    name = type(error).__name__
    if isinstance(error, asyncpg.PostgresError):
        state = error.sqlstate or ""
        return f"{name}: {error.args[0] if error.args else ''}" if state[:2] in _TELLING else f"{name} ({state})"
    if isinstance(error, TimeoutError):
        return "no answer in time"
    # What asyncpg says itself may quote the URL or a value; the system's errors name addresses at most.
    return f"{name}: {error}" if isinstance(error, OSError) else name


# --- the door --------------------------------------------------------------------------------------------------------


async def connect(url: str, options: Options) -> "asyncpg.Connection[Any]":
    """A connection of its own, outside the pool, to a server that can be written to."""
    return await asyncpg.connect(
        url,
        timeout=options.connect_timeout,
        command_timeout=options.statement_timeout * 1.25,
        server_settings=options.server_settings(),
        target_session_attrs=_attributes(url),
    )


async def version_at(url: str, options: Options | None = None) -> tuple[int, int]:
    """The schema in the database of a URL, as `migrations.version_of` tells it; nothing is made there."""
    try:
        connection = await connect(checked(url), options or Options())
        try:
            return await version_of(connection)
        finally:
            await connection.close(timeout=1.0)
    except (*FAULTS, ValueError, LookupError) as error:
        raise unavailable(error) from None


def _attributes(url: str) -> Any:
    """Of several hosts the one that can be written to, and never a standby, unless the URL says otherwise."""
    asked = dict(parse_qsl(urlsplit(url).query)).get("target_session_attrs")
    return asyncpg.connect_utils.SessionAttribute(asked or "read-write")


@dataclass(slots=True)
class _Job:
    begun: bool = False


async def _again(work: Callable[[], Awaitable[T]]) -> T:
    """Does it, again after an error of which nothing was kept."""
    for left in reversed(range(TRIES)):
        try:
            return await work()
        except _AGAIN:
            if not left:
                raise
    raise AssertionError("the last try returns or raises")


async def _nothing_to_reset(_: object) -> None:
    """A connection comes back as it went: transactions end with their block, and nothing of ours outlives them."""


class Door:
    """Operations on the database, each answered only after its commit. Connections are opened in the running loop, when
    first needed and whenever the last was lost."""

    def __init__(self, url: str, options: Options) -> None:
        self._url = checked(url)
        self._options = options
        self._pool: asyncpg.Pool[Any] | None = None
        self._free = asyncio.Semaphore(options.connections)
        self._under_way: set[asyncio.Task[Any]] = set()
        self._closed = False

    async def ask(self, operation: Operation[T]) -> T:
        """Runs an operation whose one statement commits by itself, again after a deadlock; several only read."""
        return await self._do(lambda connection: _again(lambda: operation(Statements(connection))))

    async def look(self, operation: Operation[T]) -> T:
        """Runs an operation that only reads, all of it at one moment's state."""

        async def work(connection: Proxy) -> T:
            async with _transaction(connection, isolation="repeatable_read", readonly=True) as statements:
                return await operation(statements)

        return await self._do(work)

    async def change(self, operation: Operation[T]) -> T:
        """Runs an operation in one transaction, again after a deadlock."""

        async def once(connection: Proxy) -> T:
            async with _transaction(connection) as statements:
                return await operation(statements)

        return await self._do(lambda connection: _again(lambda: once(connection)))

    async def close(self) -> None:
        """Waits for what is under way and lets go of the connections."""
        self._closed = True
        while self._under_way:
            await asyncio.wait(self._under_way)
        if self._pool is not None:
            try:
                async with asyncio.timeout(self._options.connect_timeout):
                    await self._pool.close()
            except FAULTS:
                self._pool.terminate()
            self._pool = None

    async def _do(self, work: Callable[[Proxy], Awaitable[T]]) -> T:
        """Cancelling the caller withdraws work that has not begun; one under way goes on, so that no connection is lost to
        it and no commit is left in doubt."""
        if self._closed:
            raise SpoolUnavailable("the spool is closed")
        job = _Job()
        task = asyncio.create_task(self._perform(work, job))
        self._under_way.add(task)
        task.add_done_callback(self._ended)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            if not job.begun:
                task.cancel()
            raise

    def _ended(self, task: "asyncio.Task[Any]") -> None:
        self._under_way.discard(task)
        if not task.cancelled():
            task.exception()  # looked at here, for the caller may have gone

    async def _perform(self, work: Callable[[Proxy], Awaitable[T]], job: _Job) -> T:
        try:
            async with self._connection() as connection:
                job.begun = True
                return await work(connection)
        except FAULTS as error:
            await self._let_go_of(error)
            raise unavailable(error) from None

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[Proxy]:
        try:
            async with asyncio.timeout(self._options.free_timeout):
                await self._free.acquire()
        except TimeoutError:
            text = f"all {self._options.connections} connections to PostgreSQL are busy"
            raise SpoolUnavailable(text, code="connections-busy") from None
        try:
            pool = self._pool = self._pool or await self._make_pool()
            try:
                connection = await pool.acquire()
            except (
                ValueError,
                LookupError,
            ) as error:  # what asyncpg finds in the URL, Python in a host's or user's name
                raise unavailable(error) from None
            try:
                yield connection
            except TimeoutError:
                # The server ends what takes too long; where not even that is heard of, nobody is there to be asked again.
                connection.terminate()
                raise
            finally:
                await pool.release(connection)
        finally:
            self._free.release()

    async def _make_pool(self) -> "asyncpg.Pool[Any]":
        return await asyncpg.create_pool(
            min_size=0,
            max_size=self._options.connections,
            connect=self._connect,
            init=prepare,
            reset=_nothing_to_reset,
        )

    async def _connect(self, *_: object, **__: object) -> "asyncpg.Connection[Any]":
        return await connect(self._url, self._options)

    async def _let_go_of(self, error: BaseException) -> None:
        """A server that became read-only was replaced by another, most likely: all connections are made anew."""
        if isinstance(error, asyncpg.ReadOnlySQLTransactionError) and self._pool is not None:
            await self._pool.expire_connections()
