"""Verifies signatures in processes of their own, in turns, so that nobody's mails hold up everybody else's."""

import asyncio
from weakref import WeakValueDictionary

from apptrack_ingest.trust.child import Child
from apptrack_ingest.trust.signatures import Checked, Work

# Two, so that one mail made to be slow leaves the other to the rest; the work is a header block's, milliseconds.
_CHILDREN = 2


class Verifier:
    """Two child processes, started when needed and replaced when they overrun or die; one mail at a time of one network.

    `processor_time` is what one mail may cost a child, in seconds of CPU, a hundred times what an honest one does: more
    is the mail's doing, so its signatures do not count. `deadline` is in seconds of the clock from when a child takes
    the work: more is this machine's doing, so nobody can tell. Use it from one event loop.
    """

    def __init__(self, *, deadline: float = 3.0, processor_time: float = 1.0) -> None:
        self._children = [Child(deadline, processor_time) for _ in range(_CHILDREN)]
        self._free: asyncio.LifoQueue[Child] = (
            asyncio.LifoQueue()
        )  # the one just used again, so the other may never start
        for child in reversed(self._children):
            self._free.put_nowait(child)
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    @property
    def started(self) -> bool:
        """Whether there is a child process now."""
        return any(child.started for child in self._children)

    async def check(self, work: Work, network: str = "") -> Checked:
        """Verify one mail's signatures; others of its `network` wait their turn, and those of other networks do not.

        Where a child ends on the way, or is not fast enough, the answer is `unfinished`. Raises `IngestError` when no
        child can be started or the verifier is closed.
        """
        turn = self._turns.setdefault(network, asyncio.Lock())
        async with turn:
            child = await self._free.get()
            try:
                return await child.check(work)
            finally:
                self._free.put_nowait(child)

    async def close(self) -> None:
        """Stop the children and wait for them; a check under way ends with `IngestError`."""
        await asyncio.gather(*(child.close() for child in self._children))
