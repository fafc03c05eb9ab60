"""Machines that QEMU runs: each boots a sector of code that a test wrote."""

from __future__ import annotations

import subprocess

from tests.integration.programs import ProgramTestCase

__all__ = ["LOAD_ADDRESS", "start_machine", "start_serial_echo"]

LOAD_ADDRESS = 0x7C00
"""Where the BIOS loads the code to."""

_SECTOR = 512

# 16-bit code that returns each byte of the first serial port with one bit changed: letters in the other case.
_SERIAL_ECHO = bytes.fromhex(
    "B0 21"  #        mov al, "!"        tell that it has booted
    "E6 E9"  #        out 0xe9, al
    "BA FD 03"  # next: mov dx, 0x03fd   line status
    "EC"  #     wait: in al, dx
    "A8 01"  #        test al, 1         a byte is there
    "74 FB"  #        jz wait
    "BA F8 03"  #     mov dx, 0x03f8
    "EC"  #           in al, dx
    "34 20"  #        xor al, 0x20
    "88 C4"  #        mov ah, al
    "BA FD 03"  #     mov dx, 0x03fd
    "EC"  #     full: in al, dx
    "A8 20"  #        test al, 0x20      there is room for one
    "74 FB"  #        jz full
    "88 E0"  #        mov al, ah
    "BA F8 03"  #     mov dx, 0x03f8
    "EE"  #           out dx, al
    "EB E0"  #        jmp next
)


def start_machine(case: ProgramTestCase, code: bytes, *options: str) -> subprocess.Popen[bytes]:
    """Start a machine, which is ended with the test.

    :param code: 16-bit code, at most 510 bytes, and what it needs.
    :param options: of QEMU, beside those for a machine without a network, with 16 MiB and a VGA.
    """
    with open(case.path("disk"), "wb") as disk:
        disk.write((code.ljust(_SECTOR - 2, b"\0") + b"\x55\xaa").ljust(1024 * 1024, b"\0"))
    return case.start_program(
        *("qemu-system-x86_64", "-nodefaults", "-no-user-config", "-net", "none"),
        *("-accel", "tcg", "-m", "16", "-vga", "std"),
        *("-drive", f"file={case.path('disk')},format=raw,if=ide"),
        *options,
    )


def start_serial_echo(case: ProgramTestCase, socket: str) -> subprocess.Popen[bytes]:
    """Start a machine whose serial port returns letters in the other case, and wait until it does.

    :param socket: path of the Unix socket to make for the port, as KubeVirt does.
    """
    booted = case.path("booted")
    port = f"socket,id=port,path={socket},server=on,wait=off"
    options = ("-display", "none", "-chardev", port, "-serial", "chardev:port", "-debugcon", f"file:{booted}")
    qemu = start_machine(case, _SERIAL_ECHO, *options)
    case.wait_for_file(booted, b"!")
    return qemu
