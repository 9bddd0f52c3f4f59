"""What happened, as the rest of the program sees it, and the names of what the kernel numbers."""

from __future__ import annotations

import enum
import errno
import struct
from typing import NamedTuple, Union


class Op(enum.IntEnum):
    """Kinds of records, as in bpf/wire.h."""

    INIT = 1
    ADD = 2
    RM = 3
    LAST = 4
    GONE = 5
    CLOSED = 6
    COPY = 7


class Tally(enum.IntEnum):
    """What refused calls were of which only the number is left, as in bpf/wire.h."""

    PAIR = 1
    UPDATE = 2
    FAILURE = 3


class Exhausted(enum.IntEnum):
    """What a call that failed with EMFILE had none left of, as in bpf/wire.h."""

    UNKNOWN = 0
    INSTANCES = 1
    DESCRIPTORS = 2


# INIT is inotify_init1 and the older inotify_init
CALL_NAMES = {Op.INIT: "inotify_init", Op.ADD: "inotify_add_watch", Op.RM: "inotify_rm_watch"}


class Process(NamedTuple):
    """A process for all time: the pid, and when it began in nanoseconds of CLOCK_BOOTTIME."""

    pid: int
    birth: int


class Instance(NamedTuple):
    """
    An inotify instance for all time.

    The kernel reuses the address of a group as soon as it is closed, so the generation, the
    time the group was made (0 if before tracing), is part of the key.
    """

    group: int
    gen: int


class WalkEnd(enum.IntEnum):
    """Why a walk over the frames of a stack went no further, as in bpf/wire.h."""

    OUTERMOST = 0
    NO_ROW = 1
    UNREADABLE = 2
    BACKWARD = 3
    TOO_DEEP = 4
    COMPAT = 5
    KEPT = 6
    UNKNOWN = 7
    # what the kernel does not tell: the frames of a refused call made room for others
    DISPLACED = -1
    # the copy ends too early
    NOT_COPIED = -2
    # the walk went by rows of code that is gone
    REPLACED = -3
    # reading the program's tables takes too long
    TOO_SLOW = -4


class RawStack(NamedTuple):
    """
    A user stack as the kernel walked it.

    `frames` are program counters of 8 bytes each, innermost first: where the call was made, then
    return addresses. `end` says why there are no more, `guessed` that some are not certain.
    """

    frames: bytes
    end: int
    guessed: bool

    def addresses(self) -> tuple[int, ...]:
        return struct.unpack(f"={len(self.frames) // 8}Q", self.frames)


NO_STACK = RawStack(b"", WalkEnd.OUTERMOST, False)


class StackCopy(NamedTuple):
    """
    The stack of a call that the kernel could not walk to its end, as it was then.

    `tid` and `ts` are the call's. `registers` are numbered as in DWARF, up to the program counter.
    `pc`, `sp` and `fp` are of the frame that the walk did not get beyond, the one after `frames`
    others; `is_exact` says that it was interrupted at `pc`, and is not waiting for a call before it
    to return. `stack` is where the whole of it begins, another after an exec. `content` are the
    bytes from the address `base` on; there may be more if it `is_cut`. `present` has a bit for each
    page of it that could be read, the first for what comes before the first whole one.
    """

    ts: int
    process: Process
    exec_id: int
    tid: int
    pc: int
    is_exact: bool
    sp: int
    fp: int
    base: int
    stack: int
    frames: int
    registers: tuple[int, ...]
    content: bytes
    present: int = -1
    is_cut: bool = False


class Caller(NamedTuple):
    """
    Who called from where, and on which instance: what a flood of calls has in common.

    `comm` is raw bytes.
    """

    op: int
    process: Process
    instance: Instance
    exec_id: int
    tid: int
    uid: int
    fd: int
    comm: bytes
    stack: RawStack


class FullUser(NamedTuple):
    """Who had all that a limit allows when a call met it, in which user namespace."""

    userns: int
    uid: int
    used: int
    limit: int

    @property
    def payer(self) -> tuple[int, int]:
        """As Payer, by which walks know users."""
        return self.userns, self.uid


class CallEvent(NamedTuple):
    """
    One finished inotify call. Times are nanoseconds; `path` is raw bytes.

    Of a new watch, what it is on: the address of the `inode`, its number `ino`, `dev` (kernel
    dev_t) and generation (`detail`), zeros if that could not be told. Of a new instance, who is
    charged: the user namespace (`ino`) and the uid (`dev`). After EMFILE `detail` is one of
    Exhausted. Of a limit that a user met, see `full_user`.
    """

    ts: int
    caller: Caller
    ret: int
    arg: int
    path: bytes | None
    inode: int = 0
    ino: int = 0
    dev: int = 0
    detail: int = 0

    @property
    def op(self) -> int:
        return self.caller.op

    @property
    def full_user(self) -> FullUser | None:
        """Whose limit a call met; None if it met none, or that is not known."""
        if self.ret >= 0 or not self.ino:
            return None
        return FullUser(self.ino, self.dev, self.inode >> 32, self.inode & 0xFFFFFFFF)

    @property
    def wd(self) -> int:
        """The watch descriptor of a successful add or of a removal."""
        if self.caller.op == Op.ADD:
            return self.ret
        return self.arg if self.arg < 1 << 31 else self.arg - (1 << 32)


class TallyEvent(NamedTuple):
    """So many refused calls like `call`, which was the first of them."""

    ts: int
    call: CallEvent
    tally: Tally
    times: int


class LastEvent(NamedTuple):
    """Watches that an instance still had at the moment a process holding it ended."""

    tgid: int
    ts: int
    group: int
    gen: int
    birth: int
    wds: tuple[int, ...]
    truncated: bool

    @property
    def process(self) -> Process:
        return Process(self.tgid, self.birth)

    @property
    def instance(self) -> Instance:
        return Instance(self.group, self.gen)


class GoneEvent(NamedTuple):
    """
    A watch that went in another way than by a traced call.

    `trace` are the return addresses of the kernel at work then, innermost first; `tgid` is the
    process it worked for, which is seldom the one that watched.
    """

    tgid: int
    ts: int
    group: int
    gen: int
    wd: int
    trace: tuple[int, ...]

    @property
    def instance(self) -> Instance:
        return Instance(self.group, self.gen)


class ClosedEvent(NamedTuple):
    """The last descriptor of an instance was closed, by `tgid`, and its watches are gone."""

    tgid: int
    ts: int
    group: int
    gen: int

    @property
    def instance(self) -> Instance:
        return Instance(self.group, self.gen)


Event = Union[TallyEvent, CallEvent, LastEvent, GoneEvent, ClosedEvent]

# include/uapi/linux/inotify.h
_MASK_NAMES = (
    (0x00000001, "IN_ACCESS"),
    (0x00000002, "IN_MODIFY"),
    (0x00000004, "IN_ATTRIB"),
    (0x00000008, "IN_CLOSE_WRITE"),
    (0x00000010, "IN_CLOSE_NOWRITE"),
    (0x00000020, "IN_OPEN"),
    (0x00000040, "IN_MOVED_FROM"),
    (0x00000080, "IN_MOVED_TO"),
    (0x00000100, "IN_CREATE"),
    (0x00000200, "IN_DELETE"),
    (0x00000400, "IN_DELETE_SELF"),
    (0x00000800, "IN_MOVE_SELF"),
    (0x00002000, "IN_UNMOUNT"),
    (0x00004000, "IN_Q_OVERFLOW"),
    (0x00008000, "IN_IGNORED"),
    (0x01000000, "IN_ONLYDIR"),
    (0x02000000, "IN_DONT_FOLLOW"),
    (0x04000000, "IN_EXCL_UNLINK"),
    (0x10000000, "IN_MASK_CREATE"),
    (0x20000000, "IN_MASK_ADD"),
    (0x40000000, "IN_ISDIR"),
    (0x80000000, "IN_ONESHOT"),
)
_IN_ALL_EVENTS = 0x00000FFF
IN_MASK_ADD = 0x20000000
IN_ONESHOT = 0x80000000
_INIT_FLAG_NAMES = ((0o4000, "IN_NONBLOCK"), (0o2000000, "IN_CLOEXEC"))

# inotify_init1(2), inotify_add_watch(2), inotify_rm_watch(2)
_EXPLANATIONS = {
    (Op.ADD, errno.ENOSPC): "the user has all the watches that the limit allows",
    (Op.ADD, errno.ENOENT): "the path did not exist, or is a symbolic link to nothing",
    (Op.ADD, errno.EACCES): "the process may not read the path, or not enter a folder on the way",
    (Op.ADD, errno.EEXIST): "already watched, and IN_MASK_CREATE asks for a new watch",
    (Op.ADD, errno.ENOTDIR): "a part of the path is no directory, or IN_ONLYDIR asks for one",
    (Op.ADD, errno.EINVAL): (
        "no event in the mask, IN_MASK_ADD with IN_MASK_CREATE, or no inotify instance"
    ),
    (Op.INIT, errno.EINVAL): "a flag that is neither IN_NONBLOCK nor IN_CLOEXEC",
    (Op.RM, errno.EINVAL): (
        "no such watch in this instance: the kernel removed it before, or it is another's number"
    ),
}
_NO_INSTANCE = "the user has all the instances that the limit allows"
_NO_DESCRIPTOR = "the process has no file descriptor left (RLIMIT_NOFILE)"
_EXHAUSTED = (f"{_NO_INSTANCE}, or {_NO_DESCRIPTOR}", _NO_INSTANCE, _NO_DESCRIPTOR)
_GENERAL = {
    errno.EBADF: "the descriptor is not open",
    errno.ENOMEM: "the kernel had no memory, or the cgroup has used all of its own",
    errno.EPERM: "a security module or a sandbox (seccomp) refuses it",
    errno.ENOSYS: "a sandbox (seccomp) hides the call",
    errno.ENFILE: "the system has no file descriptor left",
    errno.EFAULT: "the path is outside of the process's memory",
    errno.ENAMETOOLONG: "the path or a name in it is too long",
    errno.ELOOP: "too many symbolic links on the way",
    errno.EIO: "the filesystem could not read it",
    errno.ESTALE: "the server of the network filesystem no longer has it",
    errno.ENOTCONN: "the program behind the filesystem (FUSE) has ended",
    errno.ENOTDIR: "a part of the path is no directory",
}


def mask_names(mask: int) -> tuple[str, ...]:
    """The names in a watch mask; bits without a name come last, in hexadecimal."""
    names: list[str] = []
    if mask & _IN_ALL_EVENTS == _IN_ALL_EVENTS:
        names.append("IN_ALL_EVENTS")
        mask &= ~_IN_ALL_EVENTS
    return (*names, *_bit_names(mask, _MASK_NAMES))


def init_flag_names(flags: int) -> tuple[str, ...]:
    """The names in the flags of inotify_init1."""
    return _bit_names(flags, _INIT_FLAG_NAMES)


def errno_name(number: int) -> str:
    """``ENOSPC`` for 28 or -28."""
    return errno.errorcode.get(abs(number), f"errno {abs(number)}")


def explanation(op: Op, number: int, exhausted: int = Exhausted.UNKNOWN) -> str:
    """Why a call fails with this errno; "" if there is nothing to say."""
    if (op, number) == (Op.INIT, errno.EMFILE):
        return _EXHAUSTED[exhausted]
    return _EXPLANATIONS.get((op, number)) or _GENERAL.get(number, "")


def _bit_names(bits: int, table: tuple[tuple[int, str], ...]) -> tuple[str, ...]:
    names = [name for bit, name in table if bits & bit]
    for bit, _ in table:
        bits &= ~bit
    return (*names, hex(bits)) if bits else tuple(names)
