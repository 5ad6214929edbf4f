"""Finds a handler by the name a person wrote in the settings, and says what is wrong when there is none."""

import importlib
import inspect
import traceback
from collections.abc import Callable
from difflib import get_close_matches
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, NoReturn

from apptrack_ingest.errors import HandlerError

GROUP = "apptrack_ingest.handlers"
"""The entry point group in which a distribution announces its handlers."""

Target = Callable[..., Any]
"""A handler as found: a class with `handle`, or a function of one application."""


def known_names() -> list[str]:
    """The names of all installed handlers, sorted."""
    return sorted({point.name for point in entry_points(group=GROUP)})


def load(name: str) -> Target:
    """The handler class or function called `name`: an entry point's name, or `package.module:Name`.

    Raises HandlerError when there is none, when it cannot be imported, or when it is no handler; the text says which
    and what to do. A module is looked for on `sys.path` alone.
    """
    point = _own(name) if ":" in name else _installed(name)
    target = _attribute(name, point, _module(name, point))
    _must_be_a_handler(name, target)
    return target  # type: ignore[no-any-return]


def _own(name: str) -> EntryPoint:
    module, _, attribute = name.partition(":")
    dotted = [*module.split("."), *attribute.split(".")]
    if not all(part.isidentifier() for part in dotted):
        _fail(name, "it should be written as package.module:Name")
    return EntryPoint(name=name, value=name, group=GROUP)


def _installed(name: str) -> EntryPoint:
    by_value = {point.value: point for point in entry_points(group=GROUP) if point.name == name}
    if not by_value:
        _fail(
            name, f"no installed handler has this name{_suggestion(name)}. Your own is written as package.module:Name"
        )
    if len(by_value) > 1:
        _fail(name, f"several are installed under this name; write one of {', '.join(sorted(by_value))} instead")
    return next(iter(by_value.values()))


def _suggestion(name: str) -> str:
    known = known_names()
    close = get_close_matches(name, known, n=1)
    return f"; known: {', '.join(known) or 'none'}" + (f" (did you mean {close[0]}?)" if close else "")


def _module(name: str, point: EntryPoint) -> Any:
    try:
        return importlib.import_module(point.module)
    except ModuleNotFoundError as error:
        if error.name and (point.module == error.name or point.module.startswith(error.name + ".")):
            _fail(name, f"there is no module {error.name}; install its package, or put its directory on PYTHONPATH")
        _fail(name, f"its module {point.module} needs the module {error.name}, which is not installed")
    except (Exception, SystemExit) as error:  # noqa: BLE001 - a module may raise anything
        _fail(name, f"importing its module {point.module} failed: {told(error)}")


def _attribute(name: str, point: EntryPoint, module: Any) -> Any:
    target = module
    for part in point.attr.split("."):
        if not hasattr(target, part):
            close = get_close_matches(part, [known for known in dir(target) if not known.startswith("_")], n=1)
            hint = f"; did you mean {close[0]}?" if close else ""
            _fail(name, f"the module {point.module} has no {point.attr}{hint}")
        target = getattr(target, part)
    return target


def _must_be_a_handler(name: str, target: Any) -> None:
    handle = getattr(target, "handle", None) if inspect.isclass(target) else target
    if not callable(handle):
        _fail(name, "it is no handler: that is a class with a method `handle`, or a function of one application")
    arguments = (None, None) if inspect.isclass(target) and _takes_self(target) else (None,)
    try:
        inspect.signature(handle).bind(*arguments)
    except TypeError:
        _fail(name, "`handle` must take exactly one application")
    except ValueError:
        return  # a callable written in C tells nothing of its parameters


def _takes_self(target: type) -> bool:
    return not isinstance(inspect.getattr_static(target, "handle"), staticmethod | classmethod)


def told(error: BaseException) -> str:
    """The error in one line, with the place it was raised at: enough for the handler's author, no traceback."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f" ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {error}{place}"


def _fail(name: str, why: str) -> NoReturn:
    raise HandlerError(f"handler {name!r}: {why}") from None
