"""`idibu cc`: the addresses that idibu copies an account's applications to, changed without losing one."""

import click

from apptrack_ingest.cli.idibu_asking import Asking, Whose, asks
from apptrack_ingest.cli.showing import print_json, say
from apptrack_ingest.idibu import CcChange, change_cc, limits, planned


@click.group("cc", short_help="The Global CC of an account.")
def cc() -> None:
    """The Global CC of an account: the addresses that idibu copies every forwarded application to."""


@cc.command("show")
@asks(Whose.MANAGED)
def show_cc(asking: Asking) -> None:
    """Show the addresses."""
    found = asking.ask(lambda client: client.service.get_cc_email()).addresses
    if asking.as_json:
        print_json({"addresses": found})
        return
    for address in found:
        say(address)
    if not found:
        say("no address: the Global CC is switched off")


@cc.command("add")
@click.argument("addresses", metavar="ADDRESS...", nargs=-1, required=True)
@asks(Whose.MANAGED)
def add_cc(asking: Asking, addresses: tuple[str, ...]) -> None:
    """Add addresses and keep the others. What is there already changes nothing."""
    for address in addresses:
        checked(address)
    tell(asking, change(asking, planned(present(asking), add=addresses)))


@cc.command("remove")
@click.argument("addresses", metavar="ADDRESS...", nargs=-1, required=True)
@asks(Whose.MANAGED, confirms=True)
def remove_cc(asking: Asking, addresses: tuple[str, ...]) -> None:
    """Remove addresses and keep the others. What is not there changes nothing; without any address it is switched off."""
    plan = planned(present(asking), remove=addresses)
    confirm_removal(asking, plan)
    tell(asking, change(asking, plan))


# --- also for `connect` and `disconnect` -----------------------------------------------------------------------------


def checked(address: str) -> str:
    """The address, if it is one; else a usage error."""
    try:
        limits.address("the address", address)
    except ValueError:
        raise click.UsageError(f"{address!r} is no e-mail address") from None
    return address


def present(asking: Asking) -> tuple[str, ...]:
    """The Global CC as it is; read in a dry run too, for what would be sent depends on it."""
    return asking.really(lambda client: client.service.get_cc_email()).addresses


def confirm_removal(asking: Asking, plan: CcChange) -> None:
    """Asks, if anything is to go."""
    if plan.changed:
        gone = ", ".join(address for address in plan.before if address not in plan.after)
        rest = "switches the Global CC off" if not plan.after else f"leaves {', '.join(plan.after)}"
        asking.confirm(f"idibu copies no application of {asking.whose} to {gone} any more; that {rest}")


def change(asking: Asking, plan: CcChange) -> CcChange:
    """Carries the plan out, if it changes anything; what came of it."""
    if not plan.changed:
        return plan
    if asking.dry_run:
        asking.show(lambda client: client.service.set_cc_email(plan.after, kept=plan.before))
    return asking.really(lambda client: change_cc(client.service, plan), changes=True)


def tell(asking: Asking, done: CcChange) -> None:
    """What the list is now."""
    if asking.as_json:
        print_json({"changed": done.changed, "before": done.before, "after": done.after})
        return
    now = ", ".join(done.after) or "no address, it is switched off"
    say(f"the Global CC of {asking.whose} {'is now' if done.changed else 'was left as it is'}: {now}")


COMMANDS = (cc,)
"""Commands of the group."""
