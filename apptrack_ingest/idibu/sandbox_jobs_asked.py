"""A request about jobs as the sandbox meets it: its XML, the account's jobs, the boards there are."""

from collections.abc import Mapping
from dataclasses import dataclass

from lxml import etree

from apptrack_ingest.idibu import xml
from apptrack_ingest.idibu.sandbox_world import Account, Job, QueuedPost, World


class Refused(Exception):
    """The request is answered with an error in `log`, and no job."""


@dataclass(frozen=True, slots=True)
class BoardRules:
    """A board the account is subscribed to: the days a post stays, and how many more posts it may take (None: any)."""

    days: int = 7
    quota: int | None = None


DEFAULT_BOARDS: Mapping[int, BoardRules] = {
    10: BoardRules(14),
    41: BoardRules(2),
    54: BoardRules(7),
    517: BoardRules(2),
}
"""The boards of idibu's examples, with the durations that the seed shows."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A request about jobs, and what it meets: the account's jobs, the boards, the time (epoch)."""

    root: etree._Element
    account: Account
    world: World
    boards: Mapping[int, BoardRules]
    now: float

    @property
    def job(self) -> etree._Element:
        """The `job` element. Raises Refused where there is none."""
        element = next(xml.children(self.root, "job"), None)
        if element is None:
            raise Refused("The payload has no job")
        return element

    def config(self, name: str, usual: str) -> str:
        """A value of the config block, in lower case."""
        block = next(xml.children(self.root, "config"), self.root)
        return xml.text_of(block, name).lower() or usual

    def jobs(self) -> list[Job]:
        """The account's jobs."""
        return self.world.jobs_of(self.account.username)

    def found(self) -> Job:
        """The job named by id or client reference. Raises Refused where there is none."""
        number = xml.attribute(self.job, "id")
        reference = xml.text_of(self.job, "client_reference")
        for job in self.jobs():
            if str(job.id) == number or (not number and reference and job.client_reference == reference):
                return job
        raise Refused("No job was found with this id" if number else "No job was found with this Client Reference")

    def used(self, board: int) -> int:
        """How many live posts the account has on a board."""
        return sum(post.live and post.board == board for job in self.jobs() for post in job.posts)

    def has_quota(self, board: int) -> bool:
        """Whether the board takes another post of the account."""
        quota = self.boards[board].quota
        return quota is None or self.used(board) < quota


def add_post(parent: etree._Element, name: str, post: QueuedPost, **more: str) -> None:
    """A pending post, its attributes as the seed has them."""
    numbers = {"boardid": str(post.board), "queueid": str(post.queue)}
    times = {"publish": post.publish, "duration": str(post.duration)}
    xml.add(parent, name, "", status="pending", **numbers, type=post.kind, **more, **times)
