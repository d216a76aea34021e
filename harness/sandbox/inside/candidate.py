"""The process of the program under test: it runs the program and then its functions, as the checker asks for them.

Nothing that this process says is believed but the values that its functions return, and these travel as plain data. It has
neither the tests nor the nonce: both come into the sandbox after it was forked.
"""

import json
import pickle

from channel import Closed, receive, send

_VIEWS: dict[type, str] = {type({}.keys()): "keys", type({}.values()): "values", type({}.items()): "items"}


def serve(source: str, requests: int, replies: int) -> None:
    """Run the program, say that it is loaded, and call its functions until nobody asks any more."""
    namespace: dict = {}
    try:
        if not _load(source, namespace, replies):
            return
        while True:
            name, positional, named = pickle.loads(receive(requests))
            try:
                if name not in namespace:
                    raise NameError(f"name '{name}' is not defined")
                reply = _value(namespace[name](*positional, **named))
            except BaseException as error:
                reply = _raised(error)
            send(replies, reply)
    except (Closed, OSError):  # the checker has seen enough; or the program closed the pipes
        return


def _load(source: str, namespace: dict, replies: int) -> bool:
    try:
        code = compile(source, "<program>", "exec")
    except MemoryError as error:
        send(replies, _raised(error))
        return False
    except (SyntaxError, ValueError, RecursionError, OverflowError) as error:  # ValueError: null bytes, lone surrogates
        send(replies, _raised(error, kind="syntax_error"))
        return False
    try:
        exec(code, namespace)  # as the field does: an empty namespace, so that __name__ is not "__main__"
    except BaseException as error:
        send(replies, _raised(error))
        return False
    send(replies, _frame("loaded"))
    return True


def _value(value: object) -> bytes:
    """The reply for a returned value. Iterators and views, which cannot be pickled, travel as lists."""
    kind, of_type = "value", type(value).__name__
    if type(value) in _VIEWS:
        kind, value = _VIEWS[type(value)], list(value)  # type: ignore[call-overload]
    elif hasattr(type(value), "__next__"):
        kind, value = "iterator", list(value)  # type: ignore[call-overload]
    try:
        content = pickle.dumps(value, protocol=5)
    except MemoryError:
        raise
    except Exception:  # a function, a module, an object that refuses: whatever it is, it is no plain data
        kind, content = "opaque", b""
    return _frame(kind, content, type=of_type, truth=bool(value))


def _raised(error: BaseException, kind: str = "raised") -> bytes:
    """The reply for an exception. Its text may itself raise."""
    try:
        text = str(error)[:200]
    except BaseException:
        text = ""
    return _frame(kind, types=[one.__name__ for one in type(error).__mro__], text=text)


def _frame(kind: str, content: bytes = b"", **fields: object) -> bytes:
    return json.dumps({"kind": kind, **fields}).encode() + b"\n" + content
