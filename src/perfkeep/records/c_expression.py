"""The C expressions that tracepoints print, as functions of a sample's fields. Pure, and the text
may be anything.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from operator import itemgetter

from perfkeep.records.c_nodes import (
    Expr,
    Form,
    Unparsed,
    cast,
    choice,
    converted,
    element,
    literal,
    number,
    operated,
    signed,
    text,
    unknown,
)
from perfkeep.records.c_values import BINDING, LONG, UNSIGNED_LONG, Type, named
from perfkeep.records.tracepoint import Field

_TOKEN = re.compile(
    r"""\s*(?:
    ("(?:[^"\\]|\\.)*")                           # 1 a string
  | ('(?:[^'\\]|\\.)')                            # 2 a character
  | (0[xX][0-9a-fA-F]+[uUlL]*|[0-9]+[uUlL]*)      # 3 a number
  | ([A-Za-z_][A-Za-z0-9_]*)                      # 4 a word
  | (->|<<|>>|<=|>=|==|!=|&&|\|\||[-+*/%&|^~!<>?:(){}\[\],.=;]))""",
    re.X | re.S,
)
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "0": "\0"}
#: Bytes of text, and parentheses in each other.
MOST_TEXT, _MOST_DEEP = 1 << 17, 64
_NAMES = {"NULL": 0, "false": 0, "true": 1}
_TYPE_WORDS = {
    "unsigned", "signed", "struct", "union", "enum", "const", "volatile", "void", "char", "short",
    "int", "long", "bool", "__force", "float", "double",
}  # fmt: skip
_SHORT_TYPE = re.compile(r"(?:__)?(?:[us](?:8|16|32|64)|[lb]e(?:16|32|64)|\w+_t)\Z", re.ASCII)


def unquoted(token: str) -> str:
    return re.sub(r"\\(.)", lambda found: _ESCAPES.get(found[1], found[1]), token[1:-1], flags=re.S)


class Parser:
    """One expression after the other.

    Args:
        fields: by their names.
        functions: what reads the arguments of a function.

    Attributes:
        used: fields in the order in which a row has them.
    """

    def __init__(
        self, source: str, fields: Mapping[str, Field],
        functions: Mapping[str, Callable[[Parser], Expr]],
    ) -> None:  # fmt: skip
        if len(source) > MOST_TEXT:
            raise Unparsed
        self.tokens: list[tuple[int, str]] = []
        at, end = 0, len(source.rstrip())
        while at < end:
            found = _TOKEN.match(source, at)
            if found is None or found.lastindex is None:
                raise Unparsed
            self.tokens.append((found.lastindex, found[found.lastindex]))
            at = found.end()
        self.at = 0
        self.used: dict[str, int] = {}
        self._fields, self._functions, self._deep = fields, functions, 0
        self._locals: dict[str, Expr] = {}

    # --- tokens -----------------------------------------------------------------------------------

    def peek(self, ahead: int = 0) -> str:
        """The next token; "" behind the last."""
        at = self.at + ahead
        return self.tokens[at][1] if at < len(self.tokens) else ""

    def take(self) -> str:
        if self.at >= len(self.tokens):
            raise Unparsed
        self.at += 1
        return self.tokens[self.at - 1][1]

    def accept(self, token: str) -> bool:
        found = self.peek() == token
        self.at += found
        return found

    def expect(self, token: str) -> None:
        if not self.accept(token):
            raise Unparsed

    def string(self) -> str | None:
        """Strings behind each other are one; None: there is none."""
        found = None
        while self.at < len(self.tokens) and self.tokens[self.at][0] == 1:
            found = (found or "") + unquoted(self.take())
        return found

    def field(self, name: str | None = None) -> Field:
        """Of this name, or of the one that comes."""
        known = self._fields.get(self.take() if name is None else name)
        if known is None:
            raise Unparsed
        return known

    def whole(self, field: Field) -> Expr:
        """All of a field."""
        index = self.used.setdefault(field.name, len(self.used))
        uses = frozenset((field.name,))
        if field.form == "int":
            type = Type(8 * field.width, field.signed)
            return Expr("number", itemgetter(index), type, field=field, uses=uses)
        form: Form = "text" if field.form == "text" else "data"
        return Expr(form, itemgetter(index), field=field, uses=uses)

    # --- expressions ------------------------------------------------------------------------------

    def expression(self) -> Expr:
        """One, up to a comma or what it is enclosed by."""
        self._deep += 1
        if self._deep > _MOST_DEEP:
            raise Unparsed
        condition = self._binary(1)
        if self.accept("?"):
            one = self.expression()
            self.expect(":")
            condition = choice(condition, one, self.expression())
        self._deep -= 1
        return condition

    def number(self) -> Expr:
        """An expression that gives a number."""
        found = self.expression()
        if found.form != "number":
            raise Unparsed
        return found

    def _binary(self, least: int) -> Expr:
        left = self._unary()
        while BINDING.get(self.peek(), 0) >= least:
            token = self.take()
            left = operated(token, left, self._binary(BINDING[token] + 1))
        return left

    def _unary(self) -> Expr:
        self._deep += 1
        if self._deep > _MOST_DEEP:
            raise Unparsed
        found = self._prefixed()
        self._deep -= 1
        return found

    def _prefixed(self) -> Expr:
        token = self.peek()
        if token in ("-", "+", "~", "!"):
            self.take()
            return signed(token, self._unary())
        if token == "&":  # a field's address is as good as the field
            self.take()
            found = self._unary()
            if found.field is None:
                raise Unparsed
            return found
        if token == "(":
            to = self._cast()
            if to is not None:
                return cast(self._unary(), *to)
        if token == "sizeof":
            return self._sizeof()
        return self._indexed(self._primary())

    def _primary(self) -> Expr:
        kind = self.tokens[self.at][0] if self.at < len(self.tokens) else 0
        if kind == 1:
            return text(self.string() or "")
        token = self.take()
        if kind == 2:
            return number(ord(unquoted(token)))
        if kind == 3:
            return literal(token)
        if token == "REC" or (token == "(" and (self.peek(), self.peek(1)) == ("REC", ")")):
            self.at += 2 * (token == "(")
            self.expect("->")
            return self.whole(self.field())
        if token == "(":
            found = self._block() if self.accept("{") else self.expression()
            self.expect(")")
            return found
        if kind != 4:
            raise Unparsed
        if token in self._locals:
            return self._locals[token]
        if token in _NAMES:
            return number(_NAMES[token])
        if not self.accept("("):  # what the kernel alone knows
            return Expr("number", unknown, LONG)
        if token not in self._functions:
            raise Unparsed
        found = self._functions[token](self)
        self.expect(")")
        return found

    def _block(self) -> Expr:
        """What the kernel's min() and max() are: ({ int x = …; int y = …; x < y ? x : y; })"""
        ahead = 0
        while True:
            while self.at + ahead < len(self.tokens) and self.tokens[self.at + ahead][0] == 4:
                ahead += 1
            if ahead < 2 or self.peek(ahead) != "=":
                break
            name = self.peek(ahead - 1)
            type = named([self.peek(one) for one in range(ahead - 1)], False)
            self.at += ahead + 1
            value = self.number()
            self._locals[name] = converted(value, type)
            self.expect(";")
            ahead = 0
        found = self.expression()
        self.accept(";")
        self.expect("}")
        return found

    def _indexed(self, found: Expr) -> Expr:
        while self.accept("["):
            at = self.number()
            self.expect("]")
            found = element(found, at)
        if self.peek() in (".", "->"):
            raise Unparsed
        return found

    def _type(self) -> tuple[list[str], bool] | None:
        """The words of a type and whether it is a pointer, and the ")" behind it."""
        at, words = self.at, list[str]()
        while at < len(self.tokens) and self.tokens[at][0] == 4:
            words.append(self.tokens[at][1])
            at += 1
        pointer = False
        while self.peek(at - self.at) == "*":
            pointer, at = True, at + 1
        if not words or self.peek(at - self.at) != ")" or "REC" in words:
            return None
        sure = pointer or len(words) > 1 or words[0] in _TYPE_WORDS or _SHORT_TYPE.match(words[0])
        following = self.tokens[at + 1] if at + 1 < len(self.tokens) else (0, "")
        if not sure and following[0] not in (2, 3, 4) and following[1] != "(":
            return None
        self.at = at + 1
        return words, pointer

    def _cast(self) -> tuple[list[str], bool] | None:
        self.at += 1
        found = self._type()
        if found is None:
            self.at -= 1
        return found

    def _sizeof(self) -> Expr:
        self.take()
        self.expect("(")
        type = self._type()
        if type is None:
            found = self.expression()
            self.expect(")")
            size = found.field.size if found.field else found.type.bits // 8
            return number(size, UNSIGNED_LONG)
        if type[0][0] in ("struct", "union") and not type[1]:
            raise Unparsed
        return number(named(*type).bits // 8, UNSIGNED_LONG)
