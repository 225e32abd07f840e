"""Plain values out of a pickle from anywhere: nothing that it names is looked up, nothing runs.

A machine for those of pickle's instructions that make numbers, text, lists, tuples and mappings,
and no other. Python's own unpickler with ``find_class`` overridden was the alternative; it still
calls what is on its stack, reads copyreg's extension registry past ``find_class``, and allocates
as much memory as a few bytes of the file ask for.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any, Protocol

MAX_TEXT_BYTES = 1 << 20  # of one text: frames' C++ names reach some kB
MAX_NUMBER_BYTES = 64
MAX_LINE_BYTES = 1 << 16
MAX_STACK = 20_000_000
MAX_HELD_BYTES = 4 << 30  # of Python objects, roughly
CHECK_EVERY = 1 << 14  # instructions
CONTAINER_BYTES, ITEM_BYTES, ENTRY_BYTES, VALUE_BYTES = 72, 9, 30, 40  # of CPython's objects

KEY_TYPES = (str, int, float, type(None))
MARK = object()

# Instructions that name, make or change objects of other types, with what they would do.
# Source: python/cpython v3.13 Lib/pickle.py, Lib/pickletools.py.
REFUSED = {
    b"R": "call a function",
    b"b": "set the state of an object",
    b"o": "make an object of a class",
    b"\x81": "make an object of a class",
    b"\x92": "make an object of a class",
    b"\x82": "look up a registered extension",
    b"\x83": "look up a registered extension",
    b"\x84": "look up a registered extension",
    b"P": "load an object from elsewhere",
    b"Q": "load an object from elsewhere",
    b"\x97": "take a buffer from elsewhere",
    b"\x98": "take a buffer from elsewhere",
    b"\x8f": "make a set",
    b"\x90": "fill a set",
    b"\x91": "make a set",
    b"\x96": "make a bytearray",
}


class Source(Protocol):
    """What is read from: a binary file."""

    def read(self, size: int, /) -> bytes:
        """At most so many bytes."""

    def readline(self, size: int, /) -> bytes:
        """At most so many bytes of a line."""


class PickleError(Exception):
    """Why the bytes are no pickle of plain values."""


def load_plain(source: Source) -> Any:
    """The value that a pickle of plain values holds.

    Raises:
        PickleError: It holds anything else, breaks off, or asks for too much memory.
    """
    return _Machine(source).run()


class _Machine:
    """pickle's stack machine, without the instructions that reach outside of it."""

    def __init__(self, source: Source) -> None:
        self.source, self.read = source, source.read
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}
        self.held_bytes = 0

    def run(self) -> Any:
        """Follow the instructions up to the last one."""
        table = {code: getattr(self, name) for code, name in INSTRUCTIONS.items()}
        try:
            while self.follow(table):
                self.check_size()
            return self.pop()
        except (IndexError, KeyError, ValueError, OverflowError) as error:
            self.take(1)  # raises where the pickle breaks off
            raise PickleError(f"is damaged: {type(error).__name__} in its instructions") from None

    def follow(self, table: dict[bytes, Callable[[], None]]) -> bool:
        """Follow some instructions; false after the last one.

        Three quarters of a snapshot's instructions are references to what was there before, so
        these have no call of their own.
        """
        read, memo, push = self.read, self.memo, self.stack.append
        for _ in range(CHECK_EVERY):
            code = read(1)
            if code == b"h":
                push(memo[read(1)[0]])
            elif code == b"j":
                push(memo[int.from_bytes(read(4), "little")])
            elif code == b".":
                return False
            elif code in table:
                table[code]()
            else:
                raise self.refusal(code)
        return True

    def check_size(self) -> None:
        """Stop before a small file has filled the memory."""
        held = self.held_bytes + VALUE_BYTES * len(self.stack) + ENTRY_BYTES * len(self.memo)
        if len(self.stack) > MAX_STACK or held > MAX_HELD_BYTES:
            raise PickleError("asks for more memory than any snapshot that memplan reads")

    def refusal(self, code: bytes) -> PickleError:
        """Why an instruction is not followed."""
        if not code:
            return PickleError("breaks off in the middle; it was not written to its end")
        if code in b"ci":
            return self.refused_name(self.line(), self.line())
        if code == b"\x93":
            return self.refused_name(*([str(x)[:80] for x in self.stack[-2:]] or ["?"]))
        if code in REFUSED:
            return PickleError(f"asks to {REFUSED[code]}, which no snapshot does; nothing was run")
        return PickleError(f"holds {code!r} where an instruction of a pickle should be")

    def refused_name(self, *parts: object) -> PickleError:
        """A name that the pickle asks for."""
        name = ".".join(p.decode("utf-8", "replace") if isinstance(p, bytes) else str(p)
                        for p in parts)[:120]  # fmt: skip
        return PickleError(f"asks for {name!r}, which no snapshot does; nothing was run")

    def take(self, size: int) -> bytes:
        """Exactly so many bytes."""
        data = self.read(size)
        if len(data) < size:
            raise PickleError("breaks off in the middle; it was not written to its end")
        return data

    def line(self) -> bytes:
        """The rest of a line."""
        data = self.source.readline(MAX_LINE_BYTES)
        if not data.endswith(b"\n"):
            raise PickleError("breaks off in the middle, or has an endless line")
        return data[:-1]

    def number(self, size: int, *, signed: bool = False) -> int:
        """A number of so many bytes."""
        return int.from_bytes(self.take(size), "little", signed=signed)

    def sized(self, width: int, limit: int) -> bytes:
        """Bytes behind their length."""
        size = self.number(width)
        if size > limit:
            raise PickleError(f"holds a single value of {size:,} bytes; no snapshot does")
        self.held_bytes += size + VALUE_BYTES
        return self.take(size)

    def push(self, value: Any) -> None:
        """Put a value on the stack."""
        self.stack.append(value)

    def pop(self) -> Any:
        """Take a value from the stack; one below a mark belongs to what is being built."""
        if self.marks and len(self.stack) <= self.marks[-1]:
            raise IndexError
        return self.stack.pop()

    def since_mark(self) -> list[Any]:
        """Take what was put on the stack since the last mark."""
        start = self.marks.pop()
        items = self.stack[start:]
        del self.stack[start:]
        return items

    def top(self, kind: type) -> Any:
        """The value on top, which must be of that type."""
        value = self.stack[-1]
        if type(value) is not kind:
            raise PickleError(
                f"is damaged: it fills a {type(value).__name__} as if a {kind.__name__}"
            )
        return value

    def fill(self, items: list[Any]) -> None:
        """Put keys and values into the mapping on top."""
        target = self.top(dict)
        self.held_bytes += ENTRY_BYTES * len(items)
        for key in items[::2]:
            if not isinstance(key, KEY_TYPES):
                raise PickleError(f"has a {type(key).__name__} as a key")
        target.update(zip(items[::2], items[1::2], strict=True))

    def op_protocol(self) -> None:
        if self.number(1) > 5:
            raise PickleError("is a pickle of an unknown protocol")

    def op_frame(self) -> None:
        self.take(8)

    def op_mark(self) -> None:
        self.marks.append(len(self.stack))
        if len(self.marks) > MAX_STACK:
            raise PickleError("is nested too deep")

    def op_pop(self) -> None:
        if self.marks and len(self.stack) <= self.marks[-1]:
            self.marks.pop()
        else:
            self.stack.pop()

    def op_pop_mark(self) -> None:
        self.since_mark()

    def op_dup(self) -> None:
        self.push(self.stack[-1])

    def op_none(self) -> None:
        self.push(None)

    def op_true(self) -> None:
        self.push(True)

    def op_false(self) -> None:
        self.push(False)

    def op_int_line(self) -> None:
        text = self.line()
        truths = {b"00": False, b"01": True}
        self.push(truths[text] if text in truths else int(text[:MAX_NUMBER_BYTES]))

    def op_long_line(self) -> None:
        self.push(int(self.line()[:MAX_NUMBER_BYTES].rstrip(b"L")))

    def op_int(self) -> None:
        self.push(self.number(4, signed=True))

    def op_int1(self) -> None:
        self.stack.append(self.take(1)[0])

    def op_int2(self) -> None:
        self.push(self.number(2))

    def op_long1(self) -> None:
        self.push(int.from_bytes(self.sized(1, MAX_NUMBER_BYTES), "little", signed=True))

    def op_long4(self) -> None:
        self.push(int.from_bytes(self.sized(4, MAX_NUMBER_BYTES), "little", signed=True))

    def op_float_line(self) -> None:
        self.push(float(self.line()))

    def op_float(self) -> None:
        self.held_bytes += VALUE_BYTES
        self.push(struct.unpack(">d", self.take(8))[0])

    def op_text_line(self) -> None:
        self.push(self.line().decode("raw-unicode-escape"))

    def op_text1(self) -> None:
        self.push(self.sized(1, MAX_TEXT_BYTES).decode("utf-8", "replace"))

    def op_text4(self) -> None:
        self.push(self.sized(4, MAX_TEXT_BYTES).decode("utf-8", "replace"))

    def op_text8(self) -> None:
        self.push(self.sized(8, MAX_TEXT_BYTES).decode("utf-8", "replace"))

    def op_bytes1(self) -> None:
        self.push(self.sized(1, MAX_TEXT_BYTES))

    def op_bytes4(self) -> None:
        self.push(self.sized(4, MAX_TEXT_BYTES))

    def op_bytes8(self) -> None:
        self.push(self.sized(8, MAX_TEXT_BYTES))

    def op_empty_list(self) -> None:
        self.held_bytes += CONTAINER_BYTES
        self.push([])

    def op_empty_dict(self) -> None:
        self.held_bytes += CONTAINER_BYTES
        self.push({})

    def op_empty_tuple(self) -> None:
        self.push(())

    def op_append(self) -> None:
        value = self.pop()
        self.top(list).append(value)
        self.held_bytes += ITEM_BYTES

    def op_appends(self) -> None:
        items = self.since_mark()
        self.top(list).extend(items)
        self.held_bytes += ITEM_BYTES * len(items)

    def op_list(self) -> None:
        items = self.since_mark()
        self.held_bytes += CONTAINER_BYTES + ITEM_BYTES * len(items)
        self.push(items)

    def op_set_item(self) -> None:
        value = self.pop()
        self.fill([self.pop(), value])

    def op_set_items(self) -> None:
        self.fill(self.since_mark())

    def op_dict(self) -> None:
        items = self.since_mark()
        self.op_empty_dict()
        self.fill(items)

    def op_tuple(self) -> None:
        items = self.since_mark()
        self.held_bytes += CONTAINER_BYTES + ITEM_BYTES * len(items)
        self.push(tuple(items))

    def _last(self, count: int) -> None:
        self.held_bytes += CONTAINER_BYTES
        items = [self.pop() for _ in range(count)]
        self.push(tuple(reversed(items)))

    def op_tuple1(self) -> None:
        self._last(1)

    def op_tuple2(self) -> None:
        self._last(2)

    def op_tuple3(self) -> None:
        self._last(3)

    def op_put_line(self) -> None:
        self.memo[int(self.line()[:MAX_NUMBER_BYTES])] = self.stack[-1]

    def op_put1(self) -> None:
        self.memo[self.number(1)] = self.stack[-1]

    def op_put4(self) -> None:
        self.memo[self.number(4)] = self.stack[-1]

    def op_memoize(self) -> None:
        self.memo[len(self.memo)] = self.stack[-1]

    def op_get_line(self) -> None:
        self.push(self.memo[int(self.line()[:MAX_NUMBER_BYTES])])


# Source: python/cpython v3.13 Lib/pickle.py: the opcodes and their operands.
INSTRUCTIONS: dict[bytes, str] = {
    b"\x80": "op_protocol", b"\x95": "op_frame", b"(": "op_mark", b"0": "op_pop",
    b"1": "op_pop_mark", b"2": "op_dup", b"N": "op_none", b"\x88": "op_true", b"\x89": "op_false",
    b"I": "op_int_line", b"L": "op_long_line", b"J": "op_int", b"K": "op_int1", b"M": "op_int2",
    b"\x8a": "op_long1", b"\x8b": "op_long4", b"F": "op_float_line", b"G": "op_float",
    b"V": "op_text_line", b"\x8c": "op_text1", b"X": "op_text4", b"\x8d": "op_text8",
    b"C": "op_bytes1", b"B": "op_bytes4", b"\x8e": "op_bytes8", b"]": "op_empty_list",
    b"}": "op_empty_dict", b")": "op_empty_tuple", b"a": "op_append", b"e": "op_appends",
    b"l": "op_list", b"s": "op_set_item", b"u": "op_set_items", b"d": "op_dict", b"t": "op_tuple",
    b"\x85": "op_tuple1", b"\x86": "op_tuple2", b"\x87": "op_tuple3", b"p": "op_put_line",
    b"q": "op_put1", b"r": "op_put4", b"\x94": "op_memoize", b"g": "op_get_line",
}  # fmt: skip
