"""Clients of other users: a child process that becomes a user and connects, and then does as told.

    with ClientAs(address, uid=1001, groups=[50]) as client:
        assert client.raw("PING") == b"+PONG\r\n"

The child makes the connection, since the kernel attests who connects, and hands the socket back:
what is sent on it afterwards can then be the test's own.
"""

import array
import os
import socket
import struct

from .resp import DEFAULT_TIMEOUT_SECONDS, Client

# Accounts that exist nowhere: numbers are all the kernel knows.
PRODUCER, CONSUMER, OUTSIDER = 20_001, 20_002, 20_003
GROUP, OTHER_GROUP = 30_001, 30_002


def connect_as(address, uid: int, gid: int = None, groups=(), timeout=DEFAULT_TIMEOUT_SECONDS):
    """A socket that a process of this user made and connected."""
    gid = uid if gid is None else gid
    ours, theirs = socket.socketpair()
    child = os.fork()
    if child == 0:
        try:
            os.setgroups(list(groups))
            os.setresgid(gid, gid, gid)
            os.setresuid(uid, uid, uid)
            made = _connect(address)
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [made.fileno()]))]
            theirs.sendmsg([b"+"], rights)
        except OSError as error:
            theirs.send(b"-" + struct.pack("i", error.errno or 0))
        finally:
            os._exit(0)
    theirs.close()
    with ours:
        ours.settimeout(timeout)
        data, control, _, _ = ours.recvmsg(16, socket.CMSG_SPACE(struct.calcsize("i")))
    os.waitpid(child, 0)
    if not data.startswith(b"+"):
        number = struct.unpack("i", data[1:5])[0]
        raise OSError(number, os.strerror(number), str(address))
    (number,) = array.array("i", control[0][2][:4])
    return socket.socket(fileno=number)


def _connect(address):
    if not isinstance(address, tuple):
        made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        made.connect(str(address))
        return made
    return socket.create_connection(address)


class ClientAs(Client):
    """A client whose connection another user made."""

    def __init__(self, address, uid, gid=None, groups=(), timeout=DEFAULT_TIMEOUT_SECONDS):
        self.socket = connect_as(address, uid, gid, groups, timeout)
        self.socket.settimeout(timeout)
        if self.socket.family != socket.AF_UNIX:
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.timeout = timeout
        self._buffer = bytearray()
        self._consumed = bytearray()
