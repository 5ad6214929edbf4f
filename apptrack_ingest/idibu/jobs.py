"""Jobs at idibu, by the customer's own reference or by idibu's id: add, update, repost, delete, cancel.

The source of every method is seed-client-reference.html.txt; what it leaves out follows idibu's later documents as far as
they go (docs/idibu.md, Jobs), and is marked as assumed beyond that.
"""

from collections.abc import Callable, Iterable
from typing import TypeVar

from pydantic import SecretStr

from apptrack_ingest.idibu import job_answers, job_requests, limits
from apptrack_ingest.idibu.answers import Answer
from apptrack_ingest.idibu.calls import Calls, Request, understood
from apptrack_ingest.idibu.job_answers import CancelAnswer, JobAnswer
from apptrack_ingest.idibu.job_models import Advert, ById, JobConfig, JobKey, Method

PATH = "/clients/api/REMOTE/V3/"
"""Followed by the hash: the whole URL is a secret."""

_NO_CONFIG = JobConfig()

T = TypeVar("T")


class Jobs:
    """The six methods, for the account with this hash.

    A job that idibu answers about is a result, failed ones too; only an answer without a job is an error. Raises ValueError
    before sending: without a hash, or beyond a documented limit.
    """

    def __init__(self, calls: Calls, hash: SecretStr | None) -> None:
        self._calls = calls
        self._hash = hash

    async def add(self, client_reference: str, advert: Advert, config: JobConfig = _NO_CONFIG) -> JobAnswer:
        """Posts a new job (ADD). Raises DuplicateReference when the reference is in the system; nothing is posted then.

        Never repeated by itself. Where the answer was lost, adding again tells: DuplicateReference says it had arrived.
        """
        (reference,) = limits.one_line("the client reference", [client_reference])
        return await self._ask(job_requests.add(reference, advert, config), job_answers.job, safe=False)

    async def update(
        self,
        key: JobKey,
        advert: Advert,
        config: JobConfig = _NO_CONFIG,
        new_client_reference: str | None = None,
    ) -> JobAnswer:
        """Changes a job (UPDATE), and its client reference too when a new one is given.

        That takes idibu's job id ("it is mandatory", says the seed): ValueError without one.
        """
        if new_client_reference is not None:
            (new_client_reference,) = limits.one_line("the new client reference", [new_client_reference])
            if not isinstance(key, ById):
                raise ValueError("a client reference can be changed only with idibu's job id")
        document = job_requests.change(Method.UPDATE, key, advert, config, new_client_reference)
        return await self._ask(document, job_answers.job)

    async def repost(self, key: JobKey, advert: Advert, config: JobConfig = _NO_CONFIG) -> JobAnswer:
        """Posts a job of the system again, as it is given here (REPOST). Never repeated by itself."""
        document = job_requests.change(Method.REPOST, key, advert, config, None)
        return await self._ask(document, job_answers.job, safe=False)

    async def quick_repost(self, key: JobKey, boards: Iterable[int] = ()) -> JobAnswer:
        """Posts a job again as idibu has it, to these boards or to all earlier ones (QUICKREPOST).

        Never repeated by itself.
        """
        return await self._ask(job_requests.quick_repost(key, _ids(boards)), job_answers.job, safe=False)

    async def delete(self, key: JobKey, boards: Iterable[int] = ()) -> JobAnswer:
        """Takes a job's posts down, from these boards or from all (DELETE).

        Repeated after a lost answer, idibu may say that it found no posts: they were taken down the first time.
        """
        return await self._ask(job_requests.delete(key, _ids(boards)), job_answers.job)

    async def delete_by_references(self, *references: str, every: bool = False) -> list[JobAnswer]:
        """Takes down the posts of the jobs with these adverts' references (DELETE; not client references).

        Such a reference need not be unique: without `every` idibu refuses one that several jobs have.
        """
        names = limits.one_line("references", references)
        return await self._ask(job_requests.delete_by_references(names, every), job_answers.jobs)

    async def cancel(self, queue_ids: Iterable[int] = (), posting_ids: Iterable[int] = ()) -> CancelAnswer:
        """Cancels queued posts, and postings that wait for completion (CANCEL), by the ids that earlier answers gave."""
        queue, postings = _ids(queue_ids), _ids(posting_ids)
        if not queue and not postings:
            raise ValueError("there is nothing to cancel")
        return await self._ask(job_requests.cancel(queue, postings), job_answers.cancelled)

    async def cancel_job(self, key: JobKey) -> CancelAnswer:
        """Cancels all that waits of a job (CANCEL). The request's shape is assumed: the seed only says that it works."""
        return await self._ask(job_requests.cancel_job(key), job_answers.cancelled)

    async def _ask(self, document: str, read: Callable[[Answer], T], safe: bool = True) -> T:
        if self._hash is None:
            raise ValueError("this call needs the account's hash")
        request = Request(
            "POST",
            PATH,
            form={"xml_text": document},
            last_segment=self._hash,
            repeatable=safe,
            read=job_answers.read,
            refusal=job_answers.refusal,
        )
        return understood(read, await self._calls.call(request))


def _ids(numbers: Iterable[int]) -> tuple[int, ...]:
    found = tuple(numbers)
    for number in found:
        limits.identity("an id", number)
    return found
