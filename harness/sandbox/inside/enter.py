"""Enters namespaces of its own and becomes the supervisor there: a script for a fresh interpreter, Linux only.

Its one argument is a dictionary, marshalled, in hexadecimal digits (JSON takes twice as long to import as all that is needed
here): `command` and `environment` of what is to run inside, `visible` (paths of this machine and what they are
called there, to be seen read-only), `hidden` (folders there that are to look empty), `scratch_bytes` and `scratch_files` of
/scratch, the one place to write; /tmp is another name of it.

Everything is new: users, processes, network (no interface is up), mounts, System V memory, host name. The root of the file system
is an empty one in memory in which the visible paths are mounted; /proc shows only the processes inside. Where root starts this,
the program runs as another user, who owns nothing; elsewhere as the same user without any privilege.
"""

import ctypes
import marshal
import os
import stat
import sys

CLONE_NEWNS = 0x00020000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000
NAMESPACES = CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWNS | CLONE_NEWIPC | CLONE_NEWUTS

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC = 1, 2, 4, 8
MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 32, 4096, 16384, 1 << 18
# The bits of statvfs that a mount of ours must keep, as the kernel does not let a user loosen them.
KEPT = {os.ST_NOSUID: MS_NOSUID, os.ST_NODEV: MS_NODEV, os.ST_NOEXEC: MS_NOEXEC}
KEPT |= {os.ST_NOATIME: 1024, os.ST_NODIRATIME: 2048, os.ST_RELATIME: 1 << 21}
MNT_DETACH = 2
PR_SET_PDEATHSIG = 1
SIGKILL = 9  # `signal` and `contextlib` are slow to import
NOBODY = 65534
DEVICES = ("null", "zero", "full", "random", "urandom")
# A mount point that is surely there; what lies below it is opened before it is covered.
ROOT = "/tmp"

LIBC = ctypes.CDLL(None, use_errno=True)


def main() -> None:
    """Enter, and run the command as the first process inside; end as it ends."""
    plan = marshal.loads(bytes.fromhex(sys.argv[1]))
    as_root = os.geteuid() == 0
    outside = os.geteuid(), os.getegid()
    user = enter_namespaces(as_root, outside)
    first = os.fork()
    if first:
        _, status = os.waitpid(first, 0)
        code = os.waitstatus_to_exitcode(status)
        os._exit(code if code >= 0 else 128 - code)
    os.umask(0o022)
    build_root(plan, user)
    if as_root:
        os.setgroups([])
        os.setresgid(user[1], user[1], user[1])
        os.setresuid(user[0], user[0], user[0])
    call("prctl", PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0)
    # Privileges of the namespace end here: the user inside is not its root.
    os.execve(plan["command"][0], plan["command"], plan["environment"])


def enter_namespaces(as_root: bool, outside: tuple[int, int]) -> tuple[int, int]:
    """Unshare everything, and return the user and group of the program, as they are called inside.

    Who enters may not say who is who there: a process that stays outside does.
    """
    inside_reader, inside_writer = os.pipe()
    mapped_reader, mapped_writer = os.pipe()
    this = os.getpid()
    helper = os.fork()
    if not helper:
        os.close(inside_writer)
        if os.read(inside_reader, 1):
            os.write(mapped_writer, map_users(this, as_root, outside))
        os._exit(0)
    os.close(mapped_writer)
    call("unshare", NAMESPACES)
    os.write(inside_writer, b"x")
    kind = os.read(mapped_reader, 1)
    os.waitpid(helper, 0)
    for descriptor in (inside_reader, inside_writer, mapped_reader):
        os.close(descriptor)
    if not kind:
        raise OSError("the users of the namespace could not be set")
    return (NOBODY, NOBODY) if kind == b"n" else outside


def map_users(pid: int, as_root: bool, outside: tuple[int, int]) -> bytes:
    """Say which users are which inside; "n" where the program is to be nobody, "s" where it stays who it is."""
    folder = f"/proc/{pid}"
    if as_root:
        # Root to look up what to mount, and nobody for the program: no file of root's is its own.
        write(f"{folder}/gid_map", f"0 0 1\n{NOBODY} {NOBODY} 1\n")
        write(f"{folder}/uid_map", f"0 0 1\n{NOBODY} {NOBODY} 1\n")
        return b"n"
    write(f"{folder}/setgroups", "deny")
    write(f"{folder}/gid_map", f"{outside[1]} {outside[1]} 1\n")
    write(f"{folder}/uid_map", f"{outside[0]} {outside[0]} 1\n")
    return b"s"


def build_root(plan: dict, user: tuple[int, int]) -> None:
    """Make the file system of the sandbox and go there."""
    visible = plan["visible"] | {f"/dev/{name}": f"/dev/{name}" for name in DEVICES}
    links = {path: os.readlink(path) for path in visible if os.path.islink(path)}  # noqa: PTH114, PTH115 - pathlib is slow to import
    sources = {inside: os.open(path, os.O_PATH) for path, inside in visible.items() if path not in links}
    mount("none", "/", None, MS_REC | MS_PRIVATE)
    mount("tmpfs", ROOT, "tmpfs", MS_NOSUID | MS_NODEV, "size=1m,mode=755")
    for path, source in sources.items():
        place(ROOT + path, stat.S_ISDIR(os.fstat(source).st_mode))
        mount(f"/proc/self/fd/{source}", ROOT + path, None, MS_BIND | MS_REC)
        os.close(source)
    for path, target in links.items():
        place(os.path.dirname(ROOT + visible[path]), folder=True)  # noqa: PTH120
        os.symlink(target, ROOT + visible[path])  # noqa: PTH211
    for path in plan["hidden"]:
        mount("tmpfs", ROOT + path, "tmpfs", MS_NOSUID | MS_NODEV, "size=4k,mode=755")
    for folder in ("/proc", "/scratch"):
        place(ROOT + folder, folder=True)
    if not os.path.exists(ROOT + "/tmp"):  # noqa: PTH110 - something visible may lie below it
        os.symlink("/scratch", ROOT + "/tmp")  # noqa: PTH211
    make_read_only()
    scratch = f"size={plan['scratch_bytes']},nr_inodes={plan['scratch_files']},mode=700,uid={user[0]},gid={user[1]}"
    mount("tmpfs", ROOT + "/scratch", "tmpfs", MS_NOSUID | MS_NODEV, scratch)
    # Refused inside a container that hides parts of its own: then the programs have none.
    try:  # noqa: SIM105 - contextlib is slow to import
        mount("proc", ROOT + "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    except PermissionError:
        pass
    os.chdir(ROOT)
    call("pivot_root", b".", b".")
    call("umount2", b".", MNT_DETACH)
    os.chdir("/scratch")
    # No namespaces inside this one, and no memory that belongs to no process; kernels that do not offer these have no such file
    # or do not let its namespace write it.
    for name in ("user/max_user_namespaces", "kernel/shmmax", "kernel/shmall", "kernel/msgmni"):
        try:  # noqa: SIM105
            write(f"/proc/sys/{name}", "0")
        except OSError:
            pass


def place(path: str, folder: bool) -> None:
    """Make something to mount on."""
    os.makedirs(path if folder else os.path.dirname(path), exist_ok=True)  # noqa: PTH103, PTH120
    if not folder:
        os.close(os.open(path, os.O_CREAT, 0o644))


def make_read_only() -> None:
    """Every mount below the root and the root itself, with those that came along; not what the root covers."""
    with open("/proc/self/mountinfo", "rb") as file:  # noqa: PTH123
        mounts = [line.split()[:5] for line in file]
    # The last at this place is ours; parents stand before their children.
    below = {next(number for number, _, _, _, point in reversed(mounts) if point == ROOT.encode())}
    for number, parent, _, _, point in mounts:
        if number in below or parent in below:
            below.add(number)
            path = point.decode("unicode_escape").encode("latin-1")
            has = os.statvfs(path).f_flag
            kept = sum(flag for bit, flag in KEPT.items() if has & bit)
            mount("none", os.fsdecode(path), None, MS_REMOUNT | MS_BIND | MS_RDONLY | kept)


def mount(source: str, target: str, kind: str | None, flags: int, options: str | None = None) -> None:
    """Call mount(2)."""
    at, of_kind, with_options = os.fsencode(target), kind and kind.encode(), options and options.encode()
    try:
        call("mount", source.encode(), at, of_kind, ctypes.c_ulong(flags), with_options)
    except OSError as error:
        raise type(error)(error.errno, f"mount {target}: {error.strerror}") from None


def call(name: str, *arguments: object) -> None:
    """Call a function of the C library; OSError where it fails."""
    if getattr(LIBC, name)(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")


def write(path: str, text: str) -> None:
    """Write to a file of the kernel's, in one go."""
    with open(path, "wb", buffering=0) as file:  # noqa: PTH123
        file.write(text.encode())


if __name__ == "__main__":
    try:
        main()
    except OSError as failure:
        sys.stderr.write(f"{failure.strerror or failure}\n")
        sys.exit(1)
