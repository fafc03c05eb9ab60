"""Machines that QEMU runs: each boots a sector of code that a test wrote."""

from __future__ import annotations

import os
import subprocess

from tests.integration.programs import ProgramTestCase

__all__ = ["start_machine", "start_screen_echo", "start_serial_echo"]

_LOAD_ADDRESS = 0x7C00  # where the BIOS loads the code to

_SECTOR = 512

_BANNER = b"wsproxy test machine, type something:\r\n\0"

# 16-bit code, which the BIOS loads to 0000:7C00. It shows the banner, then reads keys for ever; each one it
# writes to the first serial port and echoes on the screen.
_SCREEN_ECHO = bytes.fromhex(
    "31 C0"  #          xor ax, ax
    "8E D8"  #          mov ds, ax
    "8E D0"  #          mov ss, ax
    "BC 00 7C"  #       mov sp, 0x7c00
    "FB"  #             sti
    "FC"  #             cld
    "B8 03 00"  #       mov ax, 0x0003   80 x 25 characters
    "CD 10"  #          int 0x10
    "BE 00 00"  #       mov si, banner   behind the code, see below
    "AC"  #       show: lodsb
    "84 C0"  #          test al, al
    "74 09"  #          jz key
    "B4 0E"  #          mov ah, 0x0e     write a character
    "BB 07 00"  #       mov bx, 0x0007
    "CD 10"  #          int 0x10
    "EB F2"  #          jmp show
    "31 C0"  #     key: xor ax, ax       wait for a key
    "CD 16"  #          int 0x16
    "84 C0"  #          test al, al
    "74 F8"  #          jz key
    "BA F8 03"  #       mov dx, 0x03f8
    "EE"  #             out dx, al
    "B4 0E"  #          mov ah, 0x0e
    "BB 07 00"  #       mov bx, 0x0007
    "CD 10"  #          int 0x10
    "EB EB"  #          jmp key
)
_MOV_SI = b"\xbe"

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


def start_screen_echo(
    case: ProgramTestCase, socket: str, serial: str, *options: str
) -> subprocess.Popen[bytes]:
    """Start a machine that shows a banner, and then the keys that it gets.

    :param socket: path of the Unix socket to make for its display, as KubeVirt does.
    :param serial: path of a file for the same keys.
    :param options: further ones of QEMU.
    """
    banner = (_LOAD_ADDRESS + len(_SCREEN_ECHO)).to_bytes(2, "little")
    code = _SCREEN_ECHO.replace(_MOV_SI + b"\0\0", _MOV_SI + banner) + _BANNER
    qemu = start_machine(case, code, "-serial", f"file:{serial}", "-vnc", f"unix:{socket}", *options)
    case.wait_for(lambda: os.path.exists(socket), "the socket of QEMU")
    return qemu
