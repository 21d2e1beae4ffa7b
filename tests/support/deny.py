"""Runs a program below a filter of system calls: deny.py CALL:ERRNO[,CALL:ERRNO...] PROGRAM...

The calls are answered with the error and never reach the kernel. Ends with 77 where no filter can be set.
"""
import ctypes
import errno
import os
import platform
import struct
import sys

NUMBERS = {
    "x86_64": {"openat2": 437, "renameat2": 316, "fallocate": 285, "statx": 332, "fstatfs": 138, "flock": 73,
               "fchmod": 91, "linkat": 265, "fadvise64": 221},
    "aarch64": {"openat2": 437, "renameat2": 276, "fallocate": 47, "statx": 291, "fstatfs": 44, "flock": 32,
                "fchmod": 52, "linkat": 37, "fadvise64": 223},
}
LOAD_NUMBER, IF_EQUAL, RETURN = 0x20, 0x15, 0x06
ALLOW, ERRNO = 0x7FFF0000, 0x00050000
NO_NEW_PRIVS, SECCOMP, FILTER = 38, 22, 2


def main():
    numbers = NUMBERS.get(platform.machine())
    if numbers is None:
        print("unknown processor", file=sys.stderr)
        return 77
    steps = [(LOAD_NUMBER, 0, 0, 0)]
    for rule in sys.argv[1].split(","):
        call, name = rule.split(":")
        steps.append((IF_EQUAL, 0, 1, numbers[call]))
        steps.append((RETURN, 0, 0, ERRNO | getattr(errno, name)))
    steps.append((RETURN, 0, 0, ALLOW))
    packed = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in steps))

    class Program(ctypes.Structure):
        _fields_ = [("length", ctypes.c_ushort), ("steps", ctypes.c_void_p)]

    program = Program(len(steps), ctypes.addressof(packed))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(NO_NEW_PRIVS, 1, 0, 0, 0) or libc.prctl(SECCOMP, FILTER, ctypes.byref(program), 0, 0):
        print("prctl:", os.strerror(ctypes.get_errno()), file=sys.stderr)
        return 77
    os.execvp(sys.argv[2], sys.argv[2:])


sys.exit(main())
