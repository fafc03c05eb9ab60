"""A real virtual machine: QEMU, as under KubeVirt with VNC on a Unix socket. It echoes what is typed."""

from __future__ import annotations

import os
import subprocess

from tests.integration.programs import ProgramTestCase, needs
from tests.integration.qemu import LOAD_ADDRESS, start_machine

__all__ = ["MachineTestCase"]

_BANNER = b"wsproxy test machine, type something:\r\n\0"

# 16-bit code, which the BIOS loads to 0000:7C00. It shows the banner, then reads keys for ever; each one it
# writes to the first serial port and echoes on the screen.
_CODE = bytes.fromhex(
    "31 C0"  #          xor ax, ax
    "8E D8"  #          mov ds, ax
    "8E D0"  #          mov ss, ax
    "BC 00 7C"  #       mov sp, 0x7c00
    "FB"  #             sti
    "FC"  #             cld
    "B8 03 00"  #       mov ax, 0x0003   80 x 25 characters
    "CD 10"  #          int 0x10
    "BE 00 00"  #       mov si, banner   behind the code, see _code
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


def _code() -> bytes:
    banner = (LOAD_ADDRESS + len(_CODE)).to_bytes(2, "little")
    return _CODE.replace(_MOV_SI + b"\0\0", _MOV_SI + banner) + _BANNER


@needs("qemu-system-x86_64", "qemu-system-x86")
class MachineTestCase(ProgramTestCase):
    """Starts a machine.

    :ivar serial: the file of all that its first serial port was given.
    :ivar qemu: its process.
    """

    def start_machine(self) -> str:
        """Start a machine that boots the code above, and return the Unix socket on which it speaks RFB."""
        self.serial = self.path("serial")
        options = ("-serial", f"file:{self.serial}", "-vnc", f"unix:{self.path('vnc')}")
        self.qemu: subprocess.Popen[bytes] = start_machine(self, _code(), *options)
        self.wait_for(lambda: os.path.exists(self.path("vnc")), "the socket of QEMU")
        return self.path("vnc")
