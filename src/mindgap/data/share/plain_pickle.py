"""Pickles of plain values and arrays of whole numbers, read without running anything of theirs.

Neither `pickle` nor NumPy sees the content: a pickle may name any function, an array of objects takes its
bytes for addresses, a memo index, a shape or a nested key may take more memory or stack than there is. The
opcodes are walked here instead (`pickletools` says where each begins), and an array is its type, its shape
and its bytes.
"""

import math
import pickletools
import re
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np

PLAIN = frozenset(
    (
        *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
        *("UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
        *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
    )
)
OF_PYTHON_2 = frozenset(
    ("STRING", "BINSTRING", "SHORT_BINSTRING")
)  # bytes, which pickletools gives as Latin-1
CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
EMPTY = {"EMPTY_LIST": list, "EMPTY_DICT": dict, "EMPTY_TUPLE": tuple}
TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
PUT = ("PUT", "BINPUT", "LONG_BINPUT")
GET = ("GET", "BINGET", "LONG_BINGET")
NAMED = (
    *("numpy.core.multiarray _reconstruct", "numpy._core.multiarray _reconstruct"),
    *("numpy.core.numeric _frombuffer", "numpy._core.numeric _frombuffer"),
    *("numpy ndarray", "numpy dtype", "_codecs encode"),
)
WHOLE = re.compile(r"[iu][1248]")
DIMENSIONS = 4
LONGEST_NAME = 256
MOST_STEPS = 2_000_000  # a batch takes 40,000
FAULTS = (ValueError, TypeError, LookupError, AttributeError, OverflowError)  # of a pickle that is damaged


class NotPlain(ValueError):  # noqa: N818 - the message says what is wrong
    """A pickle is cut off, or is something else than plain values and arrays of whole numbers."""


@dataclass(frozen=True)
class _Name:
    """A function or class that a pickle asks for."""

    name: str


@dataclass
class _Type:
    """A NumPy type such as u1, and its byte order."""

    code: str
    order: str = "|"


@dataclass
class _Array:
    """An array: version, shape, type, whether it is in Fortran's order, bytes."""

    state: tuple = ()

    def made(self) -> np.ndarray:
        _, shape, kind, fortran, content = self.state
        if type(kind) is not _Type or type(content) is not bytes or type(shape) is not tuple:
            raise NotPlain("an array lacks its type, shape or bytes")
        dtype = np.dtype(kind.order + kind.code)
        # Before they are multiplied: a size may be a number of a million digits.
        if len(shape) > DIMENSIONS or not all(type(n) is int and 0 <= n < 2**32 for n in shape):
            raise NotPlain("an array has a shape that no array has")
        if math.prod(shape) * dtype.itemsize != len(content):
            raise NotPlain(f"an array of {shape} {dtype} has {len(content)} bytes")
        return np.frombuffer(content, dtype).reshape(shape, order="F" if fortran else "C")


def load_dict(content: bytes) -> dict[str, Any]:
    """The dictionary that a pickle holds; keys are text. NotPlain where it is something else."""
    try:
        found = _walk(content)
        if type(found) is not dict:
            raise NotPlain("it holds no dictionary")
        return {_text(key): one.made() if type(one) is _Array else one for key, one in found.items()}
    except NotPlain:
        raise
    except FAULTS as error:
        raise NotPlain(f"{type(error).__name__}: {error}") from None


def _walk(content: bytes) -> Any:
    """Protocols 0 to 5 as far as such pickles use them."""
    stack, marks, memo, encoded = [], [], {}, {}
    for opcode, value, _ in islice(pickletools.genops(content), MOST_STEPS):
        name = opcode.name
        if name in PLAIN:
            stack.append(value)
        elif name == "BYTEARRAY8":
            stack.append(bytes(value))
        elif name in OF_PYTHON_2:
            stack.append(value.encode("latin-1"))
        elif name in CONSTANTS:
            stack.append(CONSTANTS[name])
        elif name in EMPTY:
            stack.append(EMPTY[name]())
        elif name in PUT:
            memo[int(value)] = stack[-1]
        elif name == "MEMOIZE":
            memo[len(memo)] = stack[-1]
        elif name in GET:
            stack.append(memo[int(value)])
        elif name == "MARK":
            marks.append(len(stack))
        elif name in ("LIST", "TUPLE", "DICT"):
            items = _above(stack, marks)
            stack.append({"LIST": list, "TUPLE": tuple, "DICT": _pairs}[name](items))
        elif name in TUPLES:
            stack[-TUPLES[name] :] = [tuple(stack[-TUPLES[name] :])]
        elif name in ("APPEND", "SETITEM"):
            count = 1 if name == "APPEND" else 2
            items = [stack.pop() for _ in range(count)][::-1]
            _put(stack[-1], items)
        elif name in ("APPENDS", "SETITEMS"):
            items = _above(stack, marks)
            _put(stack[-1], items)
        elif name == "GLOBAL":
            stack.append(_named(value))
        elif name == "STACK_GLOBAL":
            names = [_text(stack.pop()) for _ in range(2)]
            stack.append(_named(" ".join(names[::-1])))
        elif name == "REDUCE":
            arguments = stack.pop()
            stack.append(_called(stack.pop(), arguments, encoded))
        elif name == "BUILD":
            state = stack.pop()
            _set_state(stack[-1], state)
        elif name == "STOP":
            return stack.pop()
        elif name not in ("PROTO", "FRAME"):
            raise NotPlain(f"it uses {name}, which no plain value needs")
    raise NotPlain(f"it has more than {MOST_STEPS:,} steps")


def _above(stack: list, marks: list[int]) -> list:
    """What lies above the last mark, which goes."""
    place = marks.pop()
    items = stack[place:]
    del stack[place:]
    return items


def _pairs(items: list) -> dict:
    # A key of nested tuples could take more stack than there is when it is hashed.
    return {_text(key): one for key, one in zip(items[::2], items[1::2], strict=True)}


def _put(container: Any, items: list) -> None:
    if type(container) is list:
        container.extend(items)
    elif type(container) is dict:
        container.update(_pairs(items))
    else:
        raise NotPlain("it fills something else than a list or a dictionary")


def _text(value: Any) -> str:
    if type(value) not in (bytes, str) or len(value) > LONGEST_NAME:
        raise NotPlain("a name is no text")
    return value.decode() if type(value) is bytes else value


def _named(name: str) -> _Name:
    if name not in NAMED:
        raise NotPlain(f"it asks for {name.replace(' ', '.')[:80]}, which no batch needs")
    return _Name(name)


def _called(function: Any, arguments: Any, encoded: dict[int, tuple[str, bytes]]) -> Any:
    """What the few functions that such pickles name would give; what an array is comes with its state.

    `encoded` has what was encoded before by the identity of its text: all of it is no more than the file.
    """
    if type(function) is not _Name or type(arguments) is not tuple:
        raise NotPlain("it calls something else than a function")
    if function.name.endswith("_reconstruct"):
        return _Array()
    if function.name.endswith("_frombuffer"):  # protocol 5
        content, kind, shape, order = arguments
        return _Array((1, shape, kind, order == "F", content))
    if function.name == "_codecs encode":  # Python 3 writes bytes so in protocols 0 to 2
        text, encoding = arguments
        if type(text) is not str or encoding != "latin1":
            raise NotPlain("it encodes what is no text in Latin-1")
        if id(text) not in encoded:
            encoded[id(text)] = text, text.encode("latin-1")
        return encoded[id(text)][1]
    if function.name == "numpy dtype" and WHOLE.fullmatch(code := _text(arguments[0])):
        return _Type(code)
    raise NotPlain("it has an array of something else than whole numbers")


def _set_state(one: Any, state: Any) -> None:
    if type(one) is _Array and type(state) is tuple and len(state) == 5:
        one.state = state
    elif type(one) is _Type and type(state) is tuple and (order := _text(state[1])) in ("<", ">", "|"):
        one.order = order
    else:
        raise NotPlain("it sets what is no array's")
