"""Writes that the kernel makes while the thread goes on: Linux's asynchronous I/O (io_submit(2)), no thread needed.

An image is parsed and hashed while the disk takes it. A second thread for that costs more than it saves, as the two
hand Python's lock to and fro. The wrappers that there are copy what is to be written (caio), or load a library whose
name differs between Debian's releases (libaio); the system calls themselves need neither.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import weakref

# numbers of the system calls; elsewhere the kernel is asked for one that it does not have
_SETUP, _DESTROY, _SUBMIT, _GET_EVENTS = {
    "x86_64": (206, 207, 209, 208),
    "aarch64": (0, 1, 2, 4),
}.get(platform.machine(), (-1, -1, -1, -1))
_WRITE = 1  # IOCB_CMD_PWRITE


class _Block(ctypes.Structure):
    """One operation: `struct iocb` of linux/aio_abi.h, on a little-endian machine."""

    _fields_ = (
        ("data", ctypes.c_uint64),
        ("key", ctypes.c_uint32),
        ("rw_flags", ctypes.c_int32),
        ("operation", ctypes.c_uint16),
        ("priority", ctypes.c_int16),
        ("descriptor", ctypes.c_uint32),
        ("memory", ctypes.c_uint64),
        ("bytes", ctypes.c_uint64),
        ("offset", ctypes.c_int64),
        ("reserved", ctypes.c_uint64),
        ("flags", ctypes.c_uint32),
        ("event_descriptor", ctypes.c_uint32),
    )


class _Event(ctypes.Structure):
    """What became of one: `struct io_event`."""

    _fields_ = (
        ("data", ctypes.c_uint64),
        ("block", ctypes.c_uint64),
        ("result", ctypes.c_int64),  # bytes written, or minus an error number
        ("result2", ctypes.c_int64),
    )


class BackgroundWriter:
    """Makes one write at a time; used again for the next one, as to set it up takes longer than a write.

    Raises:
        OSError: this system, or what confines this process, has no asynchronous I/O.
    """

    def __init__(self) -> None:
        context = ctypes.c_ulong(0)
        if _setup(_SETUP, 1, ctypes.byref(context)) < 0:
            raise _last_error()
        self._context = context.value
        weakref.finalize(self, _destroy, _DESTROY, self._context).atexit = False
        self._block = _Block(operation=_WRITE)
        self._blocks = ctypes.pointer(ctypes.pointer(self._block))
        self._event = _Event()
        self._memory: ctypes.c_char | None = None  # held while the kernel reads it

    def start(self, descriptor: int, content: memoryview) -> bool:
        """Begin to write at the beginning of a file; False: it cannot be done like this, write it in the usual way.

        Args:
            descriptor: opened with O_DIRECT, else it is written before this returns.
            content: writable memory, as ctypes asks for it; not to be changed before `wait` has returned.
        """
        self._memory = ctypes.c_char.from_buffer(content)
        self._block.descriptor = descriptor
        self._block.memory = ctypes.addressof(self._memory)
        self._block.bytes = len(content)
        if _submit(_SUBMIT, self._context, 1, self._blocks) == 1:
            return True
        self._memory = None
        return False

    def wait(self) -> int:
        """Wait for the write that was started; give how many bytes were written.

        Raises:
            OSError: nothing was written.
        """
        event = ctypes.byref(self._event)
        while _get_events(_GET_EVENTS, self._context, 1, 1, event, None) != 1:
            if ctypes.get_errno() != errno.EINTR:
                raise _last_error()
        self._memory = None
        result = int(self._event.result)
        if result < 0:
            raise OSError(-result, os.strerror(-result))
        return result


def start_write(descriptor: int, content: memoryview) -> BackgroundWriter | None:
    """Begin to write at the beginning of a file; None: it cannot be done like this, write it in the usual way.

    `finish_write` what is given. Arguments as of `BackgroundWriter.start`.
    """
    if content.readonly:
        return None
    try:
        writer = _idle.pop() if _idle else BackgroundWriter()
    except (IndexError, OSError):
        return None
    return writer if writer.start(descriptor, content) else None


def finish_write(writer: BackgroundWriter) -> int:
    """Wait for a write; give how many bytes were written.

    Raises:
        OSError: nothing was written.
    """
    try:
        return writer.wait()
    finally:
        _idle.append(writer)


def _last_error() -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number))


def _system_call(*types: type) -> ctypes._NamedFuncPointer:
    """Give the C library's `syscall`, an object of its own, for arguments of these types behind the number."""
    call = _LIBRARY["syscall"]
    call.restype, call.argtypes = ctypes.c_long, (ctypes.c_long, *types)
    return call


_LIBRARY = ctypes.CDLL(None, use_errno=True)  # Python's lock is let go of in each call
_setup = _system_call(ctypes.c_uint, ctypes.c_void_p)
_destroy = _system_call(ctypes.c_ulong)
_submit = _system_call(ctypes.c_ulong, ctypes.c_long, ctypes.c_void_p)
_get_events = _system_call(ctypes.c_ulong, ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p)
_idle: list[BackgroundWriter] = []  # of this process; a fork's cannot use them, and `start` says so
