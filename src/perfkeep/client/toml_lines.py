"""On which lines the keys of a TOML text stand: tomllib gives values, and no places. Pure.

Only for a text that tomllib has taken. What would be a mistake is not looked for here, so the
scanner knows as much of the syntax as is needed to tell keys from the rest.
"""

from __future__ import annotations

import re
import tomllib
from bisect import bisect_left

#: The keys that lead to a value; an int counts the elements of an array.
Path = tuple[str | int, ...]

_BLANK = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
# Quotes may stand at the end of a multi-line string, up to two more than close it.
_STRING = re.compile(
    r'"""(?:[^\\]|\\.)*?"{3,5}'
    r"|'''.*?'{3,5}"
    r'|"(?:[^"\\\n]|\\.)*"'
    r"|'[^'\n]*'",
    re.DOTALL,
)
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_DOT = re.compile(r"[ \t]*\.[ \t]*")
# Numbers, truth and times.
_PLAIN = re.compile(r"[^,\]}#\n]*")


def lines_of(text: str) -> dict[Path, int]:
    """The line of every key, table and array element, counted from 1.

    A table that several lines speak of has the first of them.

    Raises:
        ValueError: this is no TOML.
        RecursionError: arrays in arrays in arrays.
    """
    return _Scanner(text).document()


def line_of(lines: dict[Path, int], path: Path) -> int:
    """The line of a value, or of the innermost thing around it that has a line."""
    while path not in lines and path:
        path = path[:-1]
    return lines.get(path, 1)


class _Scanner:
    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.found: dict[Path, int] = {}
        self._ends = [place.start() for place in re.finditer("\n", text)]
        #: How many elements each [[array of tables]] has so far.
        self._arrays: dict[Path, int] = {}

    def document(self) -> dict[Path, int]:
        table: Path = ()
        while self._skip():
            if self._take("[["):
                table = self._header(element=True)
            elif self._take("["):
                table = self._header(element=False)
            else:
                self._pair(table)
        return self.found

    def _header(self, element: bool) -> Path:
        line, keys = self._line(), self._key()
        self._need("]]" if element else "]")
        path: Path = ()
        for number, key in enumerate(keys, 1):
            path = self._note((*path, key), line)
            if element and number == len(keys):
                self._arrays[path] = self._arrays.get(path, 0) + 1
            # [a.b] below [[a]] is of the last element of a.
            if path in self._arrays:
                path = self._note((*path, self._arrays[path] - 1), line)
        return path

    def _pair(self, path: Path) -> None:
        """key.key = value"""
        line = self._line()
        for key in self._key():
            path = self._note((*path, key), line)
        self._need("=")
        self._skip()
        self._value(path)

    def _value(self, path: Path) -> None:
        if self._take("["):
            self._array(path)
        elif self._take("{"):
            self._inline_table(path)
        elif string := _STRING.match(self.text, self.at):
            self.at = string.end()
        else:
            self._move(_PLAIN)

    def _array(self, path: Path) -> None:
        number = 0
        while not self._take("]"):
            self._value(self._note((*path, number), self._line()))
            self._skip()
            number += 1
            if not self._take(","):
                self._need("]")
                return

    def _inline_table(self, path: Path) -> None:
        while not self._take("}"):
            self._pair(path)
            self._skip()
            if not self._take(","):
                self._need("}")
                return

    def _key(self) -> list[str]:
        """The parts of a dotted key, as they are meant."""
        self._skip()
        parts: list[str] = []
        while True:
            if string := _STRING.match(self.text, self.at):
                parts.append(tomllib.loads(f"k = {string[0]}")["k"])
                self.at = string.end()
            else:
                parts.append(self._move(_BARE_KEY))
            if not _DOT.match(self.text, self.at):
                return parts
            self._move(_DOT)

    # --- the text ---------------------------------------------------------------------------------

    def _line(self) -> int:
        """Of what comes next."""
        self._skip()
        return bisect_left(self._ends, self.at) + 1

    def _note(self, path: Path, line: int) -> Path:
        self.found.setdefault(path, line)
        return path

    def _skip(self) -> bool:
        """To what comes next, over blanks, line ends and comments; False: nothing does."""
        self._move(_BLANK)
        return self.at < len(self.text)

    def _take(self, mark: str) -> bool:
        """Whether this comes next; it is passed then."""
        self._skip()
        if not self.text.startswith(mark, self.at):
            return False
        self.at += len(mark)
        return True

    def _need(self, mark: str) -> None:
        if not self._take(mark):
            raise ValueError(f"no {mark} on line {self._line()}")

    def _move(self, pattern: re.Pattern[str]) -> str:
        match = pattern.match(self.text, self.at)
        if match is None:
            raise ValueError(f"no key on line {self._line()}")
        self.at = match.end()
        return match[0]
