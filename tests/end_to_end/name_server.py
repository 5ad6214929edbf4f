"""The tests' name server beside tests that wait for other processes: in a thread with a loop of its own."""

import asyncio
import contextlib
import threading
from collections.abc import Iterator

from names import NameServer, Zone


@contextlib.contextmanager
def name_server(zone: Zone) -> Iterator[NameServer]:
    """Answers until the end; the zone may be changed meanwhile."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    server = NameServer(zone)
    try:
        asyncio.run_coroutine_threadsafe(server.__aenter__(), loop).result(30)
        yield server
        asyncio.run_coroutine_threadsafe(server.__aexit__(None, None, None), loop).result(30)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(30)
        loop.close()
