"""The process of the tests: it runs them against a stand-in for each function under test, and says how they ended.

A stand-in sends the arguments to the program's process and gives back what came: builtin values and a few types of the standard
library, rebuilt here. So an object that claims to be equal to everything never gets here, and the program finds neither the tests
nor the verdict in its own process, whatever it searches or replaces there.
"""

from __future__ import annotations

import builtins
import io
import json
import pickle

from channel import Closed, receive, send

TYPE_CHECKING = False  # as mypy knows it: `typing` is slow to import
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

# What a value may be made of besides numbers, text, lists, tuples, dictionaries, sets and None. Data only: building one of these
# calls no code of the program. The plain types are there as what a defaultdict makes.
_BUILTINS = (bool, bytearray, complex, dict, float, frozenset, int, list, range, set, slice, str, tuple)
_PLAIN = {
    "builtins": [one.__name__ for one in _BUILTINS],
    "collections": ["Counter", "OrderedDict", "defaultdict", "deque"],
    "datetime": ["date", "datetime", "time", "timedelta"],
    "decimal": ["Decimal"],
    "fractions": ["Fraction"],
}
# The flag of classes whose attributes cannot be set (Py_TPFLAGS_IMMUTABLETYPE).
_IMMUTABLE = 1 << 8
_REBUILT: dict[str, Callable[[list], Any]] = {
    "iterator": iter,
    "keys": lambda values: dict.fromkeys(values).keys(),
    "values": lambda values: dict(enumerate(values)).values(),
    "items": lambda values: dict(values).items(),
}
# What an exception in the tests may say of itself by a `kind`: the program does not compile, a call took longer than the tests allow,
# the tests themselves are broken.
_OWN_KINDS = ("syntax_error", "timeout", "harness_error")


class Gone(BaseException):
    """The program's process does not answer any more."""


class Unsendable(BaseException):
    """The tests call a function with something that is no data."""


class Opaque:
    """Stands for a returned object that is no plain data: it is true or false as the object was, and equal to nothing."""

    __hash__ = None  # type: ignore[assignment]

    def __init__(self, truth: bool) -> None:
        self._truth = truth

    def __bool__(self) -> bool:
        return self._truth

    def __eq__(self, other: object) -> bool:
        return False


def check(context: str, tests: str, functions: Sequence[str], requests: int, replies: int) -> dict[str, str]:
    """Return outcome and detail: how the tests ended, or "gone" where the program's process stopped answering.

    `context` is what the tests may use besides the functions: run here, by this process, before them.
    """
    conversation = Conversation(requests, replies)
    namespace: dict[str, Any] = {}
    try:
        conversation.answer()  # that the program is loaded
        try:
            exec(compile(context, "<context>", "exec"), namespace)
            code = compile(tests, "<tests>", "exec")
        except Exception as error:
            return _said("harness_error", f"the data set's own code does not run: {_described(error)}")
        namespace |= {name: conversation.stand_in(name) for name in functions}
        exec(code, namespace)
    except Gone as error:
        return _said("gone", str(error))
    except Unsendable as error:
        # An object that the program made is its own; anything else is what these tests are not made for.
        return _said("exception" if conversation.remark else "harness_error", str(error))
    except MemoryError as error:
        return _said("memory", _described(error))
    except (AssertionError, SystemExit, KeyboardInterrupt, GeneratorExit) as error:
        return _said("failed", _described(error) + conversation.remark)
    except BaseException as error:
        kind = getattr(error, "kind", "")
        kind = kind if kind in _OWN_KINDS else "exception"
        return _said(kind, _described(error) + conversation.remark)
    return _said("passed", "")


class Conversation:
    """Asks the program's process; one question, one answer."""

    def __init__(self, requests: int, replies: int) -> None:
        self._requests = requests
        self._replies = replies
        self.remark = ""  # that a value could not be brought over, to go with the failure that follows from it

    def stand_in(self, name: str) -> Callable[..., Any]:
        """A function that the program's process runs."""

        def function(*positional: Any, **named: Any) -> Any:
            try:
                request = pickle.dumps((name, positional, named), protocol=5)
            except Exception as error:
                raise Unsendable(f"{name} is called with what cannot be sent: {error}{self.remark}") from error
            try:
                send(self._requests, request)
            except OSError as error:
                raise Gone from error
            return self.answer()

        function.__name__ = function.__qualname__ = name
        return function

    def answer(self) -> Any:
        """Return the value that comes next, or raise what the program raised."""
        try:
            head, _, content = receive(self._replies).partition(b"\n")
            fields = json.loads(head)
            kind, of_type, truth = fields["kind"], str(fields.get("type"))[:80], bool(fields.get("truth"))
            error = _error(fields, kind) if kind in {"raised", "syntax_error"} else None
            value = None if error or not content else _Unpickler(io.BytesIO(content)).load()
            if kind in _REBUILT:
                value = _REBUILT[kind](value)  # type: ignore[arg-type]
        except Refused:
            kind = "opaque"
        except MemoryError:
            raise
        except (Closed, OSError) as why:
            raise Gone(f"it was gone: {why}") from why
        except Exception as why:  # it did not come from our `candidate.py`
            raise Gone("it answered with what is no answer") from why
        if error is not None:
            raise error
        if kind == "opaque":
            self.remark = f" ({of_type} returned, which is no plain data)"
            return Opaque(truth)
        return value


class Refused(pickle.UnpicklingError):
    """A value that holds something else than data."""


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if name not in _PLAIN.get(module, ()):
            raise Refused(f"{module}.{name}")
        found = super().find_class(module, name)
        # A pickle may set attributes of what it names: `Counter.__eq__`. What makes a Counter without being it has none to set.
        return found if found.__flags__ & _IMMUTABLE else found.__call__


def _error(fields: dict[str, Any], kind: str) -> BaseException:
    """What the program raised, as the nearest builtin exception, so that tests which expect one catch it."""
    names, text = [str(name)[:80] for name in fields["types"]], str(fields["text"])[:200]
    types = [getattr(builtins, name, None) for name in names]
    nearest = next((one for one in types if isinstance(one, type) and issubclass(one, BaseException)), Exception)
    try:
        error = nearest(text)
    except TypeError:  # a UnicodeError wants five arguments
        error = Exception(text)
    error.kind, error.described = kind, f"{names[0]}: {text}"  # type: ignore[attr-defined]
    return error


def _described(error: BaseException) -> str:
    return getattr(error, "described", None) or f"{type(error).__name__}: {error}"


def _said(outcome: str, detail: str) -> dict[str, str]:
    return {"outcome": outcome, "detail": " ".join(detail[:300].split())}
