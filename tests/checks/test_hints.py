"""Advice is data: an error's message says what failed and why, and its hint what to do about it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from perfkeep.cli.main import VERBS

SOURCE = Path(__file__).parents[2] / "src" / "perfkeep"

#: The names of the exceptions that have a hint, of the functions that make them, and of those that
#: print or log a sentence.
_MAKERS = re.compile(
    "UsageError|SpecError|KernelRefused|BrokerError|Unreachable|DataError|PerfkeepError"
    "|Problem|Wrong|_?unknown|_cannot|_wrong|say|_complain"
)
_IMPERATIVES = (
    "add|adopt|ask|choose|convert|export|give|have|leave|look|make|mend|move|name|open|put|raise|read"
    "|record|remove|run|say|see|set|start|stop|try|unmap|unset|use|write"
)
# `perfkeep exec` is the subject of what it cannot do.
_VERBS = "|".join(verb for verb in VERBS if verb != "exec")
#: A clause that gives an order, a command, or an example of what to write.
ADVICE = re.compile(
    rf"[;:.,] (?:please )?(?:{_IMPERATIVES})\b(?! (?:is|was|are|were|no)\b)"
    rf"|\bperfkeep (?:{_VERBS})\b"
    r"|\bsudo\b|\bwith: |\binstead\b|(?<!not )\bwrite (?:it|them)\b|\bdid you mean\b|, like "
    r"|\bunset [A-Z]|\bPERFKEEP_[A-Z]+"
)


def _text(node: ast.expr) -> str:
    """The literal parts of a string, with … for what is computed."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else ""
    if isinstance(node, ast.JoinedStr):
        return "".join(map(_text, node.values))
    if isinstance(node, ast.BinOp):
        return _text(node.left) + _text(node.right)
    if isinstance(node, ast.IfExp):
        return _text(node.body) + "\n" + _text(node.orelse)
    return "…"


def _messages(call: ast.Call, assigned: dict[str, list[str]]) -> Iterator[str]:
    for argument in call.args:
        if isinstance(argument, ast.Name):
            yield from assigned.get(argument.id, ())
        else:
            yield _text(argument)


def advice(source: str) -> list[tuple[int, str]]:
    """(line, message) of each error in a module whose message contains advice."""
    found = []
    for function in ast.walk(ast.parse(source)):
        if not isinstance(function, ast.FunctionDef):
            continue
        assigned: dict[str, list[str]] = {}
        for node in ast.walk(function):
            target = node.targets[0] if isinstance(node, ast.Assign) else None
            if isinstance(node, ast.AugAssign):
                target = node.target
            if isinstance(target, ast.Name):
                assert isinstance(node, ast.Assign | ast.AugAssign)
                assigned.setdefault(target.id, []).append(_text(node.value))
        for node in ast.walk(function):
            if isinstance(node, ast.Call):
                name = getattr(node.func, "attr", getattr(node.func, "id", ""))
                if _MAKERS.fullmatch(name):
                    texts = _messages(node, assigned)
                    found += [(node.lineno, text) for text in texts if ADVICE.search(text)]
    return found


@pytest.mark.parametrize("path", sorted(SOURCE.rglob("*.py")), ids=str)
def test_no_message_of_an_error_contains_advice(path: Path) -> None:
    places = [f"{path}:{line}: {text!r}" for line, text in advice(path.read_text())]
    if places:
        pytest.fail("move the advice into hint=:\n" + "\n".join(places), pytrace=False)


@pytest.mark.parametrize(
    "statement",
    [
        """raise UsageError(f"{x} is no size; write it like 8M")""",
        """raise BrokerError(1, "it is taken" + "; use another")""",
        """raise perfkeep.PerfkeepError(1, "it runs; perfkeep claim ends it")""",
        """raise KernelRefused(1, "not permitted, sudo helps")""",
        """return SpecError(f"unknown {x}, did you mean y?", x)""",
        """raise UsageError("no mode, like 0640")""",
        """raise PerfkeepError(1, f"the path {x} is too long; name it with PERFKEEP_SOCKET")""",
        """say("! something was missed; perfkeep show NAME tells what")""",
        """text = f"{x} is full; make room"; raise PerfkeepError(1, text)""",
        """text = "no"; text += "; try again"; raise PerfkeepError(1, text)""",
    ],
)
def test_the_check_notices_advice(statement: str) -> None:
    assert advice(f"def f(x):\n    {statement}")


@pytest.mark.parametrize(
    "statement",
    [
        """raise UsageError(f"{x} is no size", hint="write it like 8M")""",
        """raise KernelRefused(1, "perfkeep exec needs Linux 5.14, and this is 5.10")""",
        """raise BrokerError(1, f"there is no recording {x}; there are a, b")""",
    ],
)
def test_the_check_is_silent_where_there_is_none(statement: str) -> None:
    assert not advice(f"def f(x):\n    {statement}")
