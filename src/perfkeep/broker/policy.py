"""What an administrator allows: /etc/perfkeep/policy.toml, in perfkeep-policy(5).

Read when the broker starts and on SIGHUP. Without the file the defaults hold, which allow nobody
what the kernel would refuse them alone. A file with a mistake in it is refused as a whole: until
it is mended the last good one holds, or the defaults.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any

from perfkeep.errors import PerfkeepError, UsageError
from perfkeep.kernel import privileges

if TYPE_CHECKING:
    from collections.abc import Callable


def path() -> str:
    """Where the policy is; PERFKEEP_CONFIG names another directory for all of perfkeep's files."""
    return os.path.join(os.environ.get("PERFKEEP_CONFIG") or "/etc/perfkeep", "policy.toml")


@dataclass(frozen=True, slots=True)
class Quota:
    """The most that somebody may have; None: no limit."""

    recordings: int | None = None
    events: int | None = None
    #: Bytes in all, over every CPU.
    rings: int | None = None


@dataclass(frozen=True, slots=True)
class Policy:
    """Everything that an administrator can decide.

    Attributes:
        share: owners may open their recordings to others, who then see what the kernel would
            refuse them; root always may.
        start: who may record in an instance that is not their own: uids; `start_groups`: gids.
        each, all: quotas of each user but root, and of everyone together. None for `each`: what
            the kernel lets a user lock, see `quotas`.
        end_ended: `gc` ends recordings of processes that have all ended.
        owner_gone: `gc` ends recordings of users who have no account, or no process, any more.
    """

    path: str = ""
    share: bool = False
    start: frozenset[int] = frozenset()
    start_groups: frozenset[int] = frozenset()
    each: Quota | None = None
    all: Quota = field(default_factory=Quota)
    end_ended: bool = False
    owner_gone: str = "keep"

    def may_start(self, uid: int, groups: Collection[int]) -> bool:
        return uid in self.start or bool(self.start_groups.intersection(groups))

    @property
    def open_to_others(self) -> bool:
        """Whether somebody else than the owner of the instance must be able to connect."""
        return bool(self.start or self.start_groups)


def load(name: str) -> Policy:
    """The policy in this file; the defaults if there is none.

    Raises:
        PerfkeepError: EINVAL with the key that is wrong, or the errno of reading it.
    """
    try:
        with open(name, "rb") as file:
            found = os.fstat(file.fileno())
            if found.st_uid not in (0, os.geteuid()) or found.st_mode & 0o022:
                raise PerfkeepError(
                    errno.EPERM,
                    f"{name} can be changed by others than root and you, so it is not obeyed",
                    hint=privileges.script_as_root(["chown", "root", name], ["chmod", "644", name]),
                )
            data = file.read()
    except FileNotFoundError:
        return Policy(name)
    import tomllib  # few have a policy

    try:
        return parse(tomllib.loads(data.decode()), name)
    except (ValueError, UsageError) as error:  # TOMLDecodeError, UnicodeDecodeError and our own
        raise PerfkeepError(errno.EINVAL, f"{name}: {error}; the file is not obeyed") from error


def parse(table: Mapping[str, Any], name: str = "") -> Policy:
    """Raises: ValueError, UsageError: the key that is wrong, in words."""
    policy = Policy(name)
    for key, value in table.items():
        read = _KEYS.get(key)
        if read is None:
            raise ValueError(f"unknown key {key!r}; there are {', '.join(_KEYS)}")
        policy = read(policy, value)
    return policy


def _share(policy: Policy, value: Any) -> Policy:
    if not isinstance(value, bool):
        raise ValueError("share is true or false")
    return replace(policy, share=value)


def _start(policy: Policy, value: Any) -> Policy:
    if not isinstance(value, list):
        raise ValueError('start is a list of users and @groups: ["alice", "@tracing"]')
    users, groups = set(), set()
    for one in value:
        if isinstance(one, str) and one.startswith("@"):
            groups.add(_number("group", one[1:]))
        else:
            users.add(_number("user", one))
    return replace(policy, start=frozenset(users), start_groups=frozenset(groups))


def _number(what: str, one: Any) -> int:
    """The id of a user or a group, by its name or number."""
    if isinstance(one, int) and not isinstance(one, bool) and one >= 0:
        return one
    if isinstance(one, str) and one.isdecimal() and len(one) < 11:
        return int(one)
    if isinstance(one, str):
        import grp
        import pwd

        try:
            return pwd.getpwnam(one).pw_uid if what == "user" else grp.getgrnam(one).gr_gid
        except KeyError:
            pass
    raise ValueError(f"start: there is no {what} {one!r}")


def _quota(where: str) -> Callable[[Policy, Any], Policy]:
    def read(policy: Policy, value: Any) -> Policy:
        from perfkeep.units import parse_size

        names = [one.name for one in fields(Quota)]
        if not isinstance(value, dict):
            raise ValueError(f"{where} is a table with {', '.join(names)}")
        limits: dict[str, int] = {}
        for key, limit in value.items():
            if key not in names:
                raise ValueError(f"unknown key {key!r} in {where}; there are {', '.join(names)}")
            if key == "rings" and isinstance(limit, str):
                limit = parse_size(limit)
            if not isinstance(limit, int) or isinstance(limit, bool) or limit < 0:
                raise ValueError(f"{where}.{key} is a number that is not negative")
            limits[key] = limit
        quota = Quota(**limits)
        return replace(policy, each=quota) if where == "each_user" else replace(policy, all=quota)

    return read


def _gc(policy: Policy, value: Any) -> Policy:
    if not isinstance(value, dict):
        raise ValueError("gc is a table with end_ended, owner_gone")
    for key, one in value.items():
        if key == "end_ended" and isinstance(one, bool):
            policy = replace(policy, end_ended=one)
        elif key == "owner_gone" and one in ("keep", "no-account", "no-process"):
            policy = replace(policy, owner_gone=one)
        elif key in ("end_ended", "owner_gone"):
            raise ValueError(
                f"gc.{key} cannot be {one!r}; end_ended is true or false, and owner_gone one of "
                "keep, no-account, no-process"
            )
        else:
            raise ValueError(f"unknown key {key!r} in gc; there are end_ended, owner_gone")
    return policy


_KEYS = {
    "share": _share,
    "start": _start,
    "each_user": _quota("each_user"),
    "all_users": _quota("all_users"),
    "gc": _gc,
}
