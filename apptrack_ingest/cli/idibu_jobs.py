"""`idibu jobs`: posting jobs at idibu by the customer's own reference, and taking them down again."""

import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import click

from apptrack_ingest.cli.common import FAILED
from apptrack_ingest.cli.idibu_asking import Asking, Whose, asks
from apptrack_ingest.cli.idibu_files import advert_of, filled_in, values_of
from apptrack_ingest.cli.idibu_showing import print_facts, print_rows, record
from apptrack_ingest.cli.selecting import ID
from apptrack_ingest.cli.showing import print_json
from apptrack_ingest.idibu import (
    ByClientReference,
    ById,
    CancelAnswer,
    JobAnswer,
    JobKey,
    JobStatus,
    Note,
    PostStatus,
)

Command = Callable[..., None]


def _keyed(command: Command) -> Command:
    """`--id` and `--reference`: which job."""
    by_id = click.option("--id", "job_id", type=ID, metavar="N", help="The job with this id at idibu.")
    return by_id(click.option("--reference", metavar="TEXT", help="The job with this client reference.")(command))


def _with_boards(command: Command) -> Command:
    return click.option(
        "--board", "boards", type=ID, multiple=True, metavar="N", help="Only this job board; repeatable."
    )(command)


def _key(job_id: int | None, reference: str | None) -> JobKey:
    if job_id is not None and reference is None:
        return ById(job_id)
    if job_id is None and reference is not None and reference.strip().isprintable() and reference.strip():
        return ByClientReference(reference)
    raise click.UsageError("say which job: either --id N or --reference TEXT")


def _called(key: JobKey) -> str:
    return f"job {key.id}" if isinstance(key, ById) else f"the job with the reference {key.client_reference}"


@click.group("jobs", short_help="Post jobs, and take them down.")
def jobs() -> None:
    """Jobs at idibu by your own reference (which comes back in every application's headers) or by idibu's id."""


@jobs.command("add")
@click.argument("client_reference")
@filled_in
@asks(Whose.ACCOUNT)
def add(asking: Asking, client_reference: str, file: Path | None, assignments: tuple[str, ...]) -> None:
    """Post a new job with your own CLIENT_REFERENCE, which no other job of the account may have. Asked once only.

    Fields: sender_id, title, description, reference (all needed), boards (517, or 517:7 for seven days), start_date,
    salary_min, salary_max, salary_per, currency, job_type, job_time, category, location, sublocation, publish; in the
    section config: lockboards, show_durations, partner_id, redirect_url, validate_level, completion_email.
    """
    advert, config = advert_of(values_of(file, assignments))
    _tell(asking, [asking.ask(lambda client: client.jobs.add(client_reference, advert, config), changes=True)])


@jobs.command("update")
@_keyed
@click.option("--new-reference", metavar="TEXT", help="Gives the job this client reference; needs --id.")
@filled_in
@asks(Whose.ACCOUNT)
def update(
    asking: Asking,
    job_id: int | None,
    reference: str | None,
    new_reference: str | None,
    file: Path | None,
    assignments: tuple[str, ...],
) -> None:
    """Change a job; the fields are those of `jobs add`, and those needed there are needed here."""
    key = _key(job_id, reference)
    advert, config = advert_of(values_of(file, assignments))
    _tell(asking, [asking.ask(lambda client: client.jobs.update(key, advert, config, new_reference), changes=True)])


@jobs.command("repost")
@_keyed
@filled_in
@asks(Whose.ACCOUNT)
def repost(
    asking: Asking, job_id: int | None, reference: str | None, file: Path | None, assignments: tuple[str, ...]
) -> None:
    """Post a job of idibu's again, as it is given here; the fields are those of `jobs add`. Asked once only."""
    key = _key(job_id, reference)
    advert, config = advert_of(values_of(file, assignments))
    _tell(asking, [asking.ask(lambda client: client.jobs.repost(key, advert, config), changes=True)])


@jobs.command("quick-repost")
@_keyed
@_with_boards
@asks(Whose.ACCOUNT)
def quick_repost(asking: Asking, job_id: int | None, reference: str | None, boards: tuple[int, ...]) -> None:
    """Post a job again as idibu has it, to the boards named or to all earlier ones. Asked once only."""
    key = _key(job_id, reference)
    _tell(asking, [asking.ask(lambda client: client.jobs.quick_repost(key, boards), changes=True)])


@jobs.command("delete")
@_keyed
@_with_boards
@click.option(
    "--advert-reference",
    "adverts",
    multiple=True,
    metavar="TEXT",
    help="The job with this reference in the advert, which need not be unique; repeatable.",
)
@click.option("--every", is_flag=True, help="With --advert-reference: all jobs that have it, if there are several.")
@asks(Whose.ACCOUNT, confirms=True)
def delete(
    asking: Asking,
    job_id: int | None,
    reference: str | None,
    boards: tuple[int, ...],
    adverts: tuple[str, ...],
    every: bool,
) -> None:
    """Take a job's posts down, from the boards named or from all."""
    if not adverts:
        if every:
            raise click.UsageError("--every goes with --advert-reference")
        key = _key(job_id, reference)
        where = f"boards {', '.join(map(str, boards))}" if boards else "all boards"
        asking.confirm(f"{_called(key)} is taken down from {where}")
        _tell(asking, [asking.ask(lambda client: client.jobs.delete(key, boards), changes=True)])
        return
    if job_id is not None or reference is not None or boards:
        raise click.UsageError("--advert-reference goes with --every alone")
    asking.confirm(
        f"{'all jobs' if every else 'the jobs'} with the advert's reference {', '.join(adverts)} are taken down"
    )
    _tell(asking, asking.ask(lambda client: client.jobs.delete_by_references(*adverts, every=every), changes=True))


@jobs.command("cancel")
@_keyed
@click.option("--queue", type=ID, multiple=True, metavar="N", help="The queued post with this id; repeatable.")
@click.option(
    "--posting", type=ID, multiple=True, metavar="N", help="The posting that waits for completion; repeatable."
)
@asks(Whose.ACCOUNT, confirms=True)
def cancel(
    asking: Asking, job_id: int | None, reference: str | None, queue: tuple[int, ...], posting: tuple[int, ...]
) -> None:
    """Cancel queued posts and postings that wait for completion, by the ids of earlier answers, or all of a job."""
    if not queue and not posting:
        key = _key(job_id, reference)
        asking.confirm(f"all that waits of {_called(key)} is cancelled")
        answer = asking.ask(lambda client: client.jobs.cancel_job(key), changes=True)
    elif job_id is not None or reference is not None:
        raise click.UsageError("give either --queue and --posting, or a job")
    else:
        asking.confirm(
            f"{_ids('queued posts', queue)}{' and ' * bool(queue and posting)}{_ids('postings', posting)} end"
        )
        answer = asking.ask(lambda client: client.jobs.cancel(queue, posting), changes=True)
    _tell_cancelled(asking, answer)


def _ids(what: str, numbers: Sequence[int]) -> str:
    return f"{what} {', '.join(map(str, numbers))}" if numbers else ""


# --- telling ---------------------------------------------------------------------------------------------------------


def _tell(asking: Asking, answers: Sequence[JobAnswer]) -> None:
    """What became of each job; exit code 1 when any, or a post of it, failed."""
    if asking.as_json:
        print_json({"jobs": record(list(answers))})
    else:
        for answer in answers:
            _print(answer)
    if any(_failed(answer) for answer in answers):
        sys.exit(FAILED)


def _failed(answer: JobAnswer) -> bool:
    return answer.status is JobStatus.FAILED or any(post.status is PostStatus.FAILED for post in answer.posts)


def _print(answer: JobAnswer) -> None:
    print_facts(
        [
            ("job", answer.id),
            ("client reference", answer.client_reference),
            ("status", answer.status and answer.status.value),
            ("to be completed at", answer.completion_url),
            ("posting", answer.posting_id),
            *_notes(answer.errors, answer.warnings),
        ]
    )
    if answer.posts:
        rows = [
            (one.board_id, one.type, one.status.value, one.reason and one.reason.value, one.queue_id, one.message)
            for one in answer.posts
        ]
        print_rows(("board", "type", "status", "reason", "queue id", "message"), rows, folding=("message",))


def _notes(errors: Iterable[Note], warnings: Iterable[Note]) -> list[tuple[str, object]]:
    listed = [("error", note) for note in errors] + [("warning", note) for note in warnings]
    return [(kind, " ".join(filter(None, (_about(note), note.text)))) for kind, note in listed]


def _about(note: Note) -> str:
    board = f"board {note.board_id}" if note.board_id is not None else None
    about = ", ".join(filter(None, (note.kind and note.kind.value, note.field, board)))
    return about and f"{about}:"


def _tell_cancelled(asking: Asking, answer: CancelAnswer) -> None:
    """What became of each; exit code 1 when any failed."""
    ended = [("queued post", one) for one in answer.queue] + [("posting", one) for one in answer.postings]
    if asking.as_json:
        print_json(record(answer))
    else:
        print_facts(_notes(answer.errors, answer.warnings))
        rows = [(kind, one.id, one.status.value, one.message) for kind, one in ended]
        print_rows(("what", "id", "status", "message"), rows, folding=("message",))
    if answer.errors or any(one.status is PostStatus.FAILED for _, one in ended):
        sys.exit(FAILED)


COMMANDS = (jobs,)
"""Commands of the group."""
