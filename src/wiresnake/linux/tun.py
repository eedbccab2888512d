"""Opens and configures the TUN device, whose packets the plane carries."""

import contextlib
import errno
import fcntl
import logging
import os
import socket
import struct
from pathlib import Path
from typing import NamedTuple

from wiresnake.errors import ConfigError, HostError
from wiresnake.linux import offloads
from wiresnake.linux.offloads import Offload

DEFAULT_MTU = 1420
"""1500 minus IPv6 (40), UDP (8) and the data message's overhead (32)."""
_UNCHOSEN_MTU = 1500
"""The kernel's MTU for a new TUN device."""

# <linux/if_tun.h>, <linux/sockios.h>
_TUNSETIFF, _TUNGETIFF = 0x400454CA, 0x800454D2
_TUNSETOFFLOAD, _TUNSETVNETHDRSZ = 0x400454D0, 0x400454D8
_TUNGETDEVNETNS = 0x54E3
_SIOCGIFMTU, _SIOCSIFMTU, _SIOCSIFTXQLEN = 0x8921, 0x8922, 0x8943
_IFF_TUN, _IFF_NO_PI, _IFF_VNET_HDR, _IFF_TUN_EXCL = 0x1, 0x1000, 0x4000, 0x8000
_IFF_MULTI_QUEUE = 0x100
_CSUM, _TSO, _USO = 0x1, 0x2 | 0x4, 0x20 | 0x40
_VNET_HEADER_BYTES = 10
_QUEUE_PACKETS = 1000

_log = logging.getLogger(__name__)


class Tun(NamedTuple):
    """An open TUN device; its owner closes `fd`."""

    fd: int
    name: str
    mtu: int
    vnet_header: bool
    offloads: frozenset[Offload]
    """The allowed offloads, without those that this device lacks."""


def check_name(name: str) -> None:
    """Raises ConfigError unless `name` is valid for an interface and in a path."""
    raw = os.fsencode(name)
    wrong = not 1 <= len(raw) <= 15 or name in (".", "..")
    if wrong or any(byte in b"/:%" or byte <= 32 or byte == 127 for byte in raw):
        raise ConfigError(
            f"{name!r} is not a valid interface name: use 1 to 15 bytes without '/', ':', '%' and"
            " whitespace, such as wg0"
        )
    if name in ("all", "default"):
        raise ConfigError(
            f"{name!r} is not a valid interface name, because /proc/sys/net/ipv4/conf uses it;"
            " choose another, such as wg0"
        )


def create(name: str, allowed: frozenset[Offload] = offloads.ALL) -> Tun:
    """Makes the interface `name`, or takes an existing TUN device (`ip tuntap add`) that no process
    has open, and leaves it up or down. HostError if refused. `allowed` are the offloads that may be
    used.
    """
    check_name(name)
    try:
        fd = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        raise _refusal(error, name) from None
    try:
        vnet_header = bool(allowed & offloads.TUN)
        flags = _IFF_TUN | _IFF_NO_PI | (_IFF_VNET_HDR if vnet_header else 0)
        try:
            _attach(fd, name, flags | _IFF_TUN_EXCL)
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
            _attach(fd, name, flags)  # It exists.
        used = _set_offloads(fd, allowed, vnet_header)
        mtu = _configure(_SIOCGIFMTU, name, 0)
        # The owner of a device may have no other permission.
        with contextlib.suppress(PermissionError):
            if mtu == _UNCHOSEN_MTU:
                mtu = _configure(_SIOCSIFMTU, name, DEFAULT_MTU)
            # Nor in a user namespace, where it stays 500.
            _configure(_SIOCSIFTXQLEN, name, _QUEUE_PACKETS)
    except OSError as error:
        os.close(fd)
        raise _refusal(error, name) from None
    keep_quiet(name)
    return Tun(fd, name, mtu, vnet_header, used)


def _attach(fd: int, name: str, flags: int) -> None:
    fcntl.ioctl(fd, _TUNSETIFF, struct.pack("16sH22x", os.fsencode(name), flags))


def adopt(fd: int, allowed: frozenset[Offload] = offloads.ALL) -> Tun:
    """Takes over a TUN device that another process opened (WG_TUN_FD). HostError if it is not
    one."""
    try:
        os.set_inheritable(fd, False)
        name = name_of(fd)
        if name is None:
            raise OSError(errno.EBADFD, os.strerror(errno.EBADFD))
        flags = struct.unpack_from("H", fcntl.ioctl(fd, _TUNGETIFF, bytes(40)), 16)[0]
        # It has IFF_NOFILTER in the place of IFF_NO_PI.
        flags = _flags(name) or flags
        if not (flags & _IFF_TUN and flags & _IFF_NO_PI):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        vnet_header = bool(flags & _IFF_VNET_HDR)
        used = _set_offloads(fd, allowed, vnet_header)
        mtu = _configure(_SIOCGIFMTU, name, 0)
    except (OSError, OverflowError) as error:
        number = error.errno if isinstance(error, OSError) else errno.EBADF
        what = (
            f"WG_TUN_FD={fd} is not a usable TUN device: pass an open one, made with IFF_TUN and"
            " IFF_NO_PI, not IFF_TAP"
        )
        raise HostError(number, what) from None
    keep_quiet(name)
    return Tun(fd, name, mtu, vnet_header, used)


def name_of(fd: int) -> str | None:
    """Returns the interface's present name, in whichever namespace it is; None once it is
    deleted."""
    try:
        raw = fcntl.ioctl(fd, _TUNGETIFF, bytes(40))
    except OSError as error:
        if error.errno == errno.EBADFD:
            return None
        raise
    return os.fsdecode(raw[:16].rstrip(b"\0"))


def namespace_of(fd: int) -> int:
    """Opens the network namespace that the interface is in; the caller closes the descriptor."""
    return fcntl.ioctl(fd, _TUNGETDEVNETNS)


def keep_quiet(name: str) -> None:
    """Stops the kernel from sending traffic of its own through the interface: no link-local
    address, no ICMP redirects (as the kernel module's wg_open does), in the calling thread's
    namespace."""
    for path, value in (
        (f"ipv6/conf/{name}/addr_gen_mode", "1"),
        (f"ipv4/conf/{name}/send_redirects", "0"),
        ("ipv4/conf/all/send_redirects", "0"),
    ):
        setting = Path("/proc/sys/net", path)
        try:
            if setting.read_text().strip() != value:
                setting.write_text(value)
        except FileNotFoundError:
            continue
        except OSError as error:
            what = "cannot set %s to %s: %s; the kernel may send packets of its own through %s: "
            remedy = "let the daemon write there, or set it in another way"
            _log.error(what + remedy, setting, value, error.strerror, name)
            return


def _set_offloads(fd: int, allowed: frozenset[Offload], vnet_header: bool) -> frozenset[Offload]:
    """Asks for the largest packets, and returns the offloads that the device accepts."""
    if not vnet_header:
        return allowed - offloads.TUN
    fcntl.ioctl(fd, _TUNSETVNETHDRSZ, struct.pack("i", _VNET_HEADER_BYTES))
    if not _takes(fd, _CSUM | _TSO | _USO):  # USO, and merged UDP, need Linux 6.2.
        allowed -= {Offload.USO, Offload.UDP_MERGE}
    tso = _TSO if Offload.TSO in allowed else 0
    uso = _USO if Offload.USO in allowed else 0
    if not _takes(fd, _CSUM | tso | uso):
        _takes(fd, _CSUM)
        allowed -= {Offload.TSO, Offload.USO}
    return allowed


def _takes(fd: int, features: int) -> bool:
    try:
        fcntl.ioctl(fd, _TUNSETOFFLOAD, features)
    except OSError:
        return False
    return True


def _configure(request: int, name: str, value: int) -> int:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as any_socket:
        ifreq = struct.pack("16si20x", os.fsencode(name), value)
        answer = fcntl.ioctl(any_socket, request, ifreq)
    return int(struct.unpack_from("i", answer, 16)[0])


def _flags(name: str) -> int:
    """Returns the flags of a TUN or TAP device; 0 if it is not one, or if /sys does not show it."""
    try:
        return int(Path("/sys/class/net", name, "tun_flags").read_text(), 16)
    except OSError:
        return 0


def _refusal(error: OSError, name: str) -> HostError:
    match error.errno:
        case errno.EBUSY | errno.EEXIST:
            what = "an interface of this name exists and is in use by another process: choose "
            what += "another name"
        case errno.EINVAL if _flags(name) & _IFF_MULTI_QUEUE:
            what = "made with multi_queue, which is not supported: make it without (ip tuntap add)"
        case errno.EINVAL:
            what = "an interface of this name exists and is not a TUN device: choose another "
            what += "name"
        case errno.EACCES:
            what = "permission denied for /dev/net/tun: run as root, or let users open it"
        case errno.EPERM:
            what = "not permitted to make or take a TUN device: run as root, with CAP_NET_ADMIN, "
            what += "or as the owner of an existing one (ip tuntap add)"
        case errno.ENOENT | errno.ENODEV | errno.ENXIO:
            what = (
                "no TUN driver at /dev/net/tun: 'modprobe tun', or give the device to the container"
            )
        case _:
            what = f"cannot make a TUN device: {error.strerror}"
    return HostError(error.errno, f"{name}: {what}")
