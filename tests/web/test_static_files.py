"""Which files are served, and at which paths."""

from __future__ import annotations

import os
import tempfile
import unittest
from pathlib import Path
from typing import Any
from unittest import mock

from wsproxy.config import Config
from wsproxy.exceptions import ConfigError
from wsproxy.protocol.representation import Redirect
from wsproxy.protocol.request import HeadReader
from wsproxy.server.gateway import Gateway, check_files
from wsproxy.testing.case import SECRET
from wsproxy.web.static_files import StaticFiles

HEAD = HeadReader().feed(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
assert HEAD is not None


class WebFilesCase(unittest.TestCase):
    """Files in a directory of the test's own; no noVNC is installed."""

    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.base = Path(directory.name).resolve()
        self.web = self.base / "web"
        self.web.mkdir()
        installed = mock.patch("wsproxy.web.static_files._INSTALLED_NOVNC", self.base / "installed")
        installed.start()
        self.addCleanup(installed.stop)

    def write(self, *names: str, below: str = "web", content: bytes | None = None) -> None:
        """Write files that have their own names as content."""
        for name in names:
            path = self.base / below / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(name.encode() if content is None else content)

    def config(self, **options: Any) -> Config:
        return Config(remote_url="ws://127.0.0.1:9", local_dev_mode=True, secret_key=SECRET, **options)

    def files(self, **options: Any) -> StaticFiles:
        return StaticFiles(self.config(**(options or {"web": str(self.web)})).file_rules)

    def content(self, files: StaticFiles, path: str) -> bytes | None:
        """Return what is served at a path, None for nothing; a redirect is its place."""
        page = files.find(path)
        if page is None:
            return None
        assert HEAD is not None
        head, _, body = page.answer(HEAD).partition(b"\r\n\r\n")
        return head.partition(b"Location: ")[2] if isinstance(page, Redirect) else body

    def fields(self, files: StaticFiles, path: str) -> list[str]:
        page = files.find(path)
        assert page is not None and HEAD is not None
        return page.answer(HEAD).partition(b"\r\n\r\n")[0].decode().split("\r\n")

    def fault(self, **options: Any) -> str:
        with self.assertRaises(ConfigError) as caught:
            self.files(**options)
        (fault,) = caught.exception.faults
        return fault


class Web(WebFilesCase):
    def test_files(self) -> None:
        """Each file is at its own path, and nothing is at any other."""
        self.write("vnc.html", "app/ui.js", "app/styles/base.css")
        files = self.files()
        for name in ("vnc.html", "app/ui.js", "app/styles/base.css"):
            self.assertEqual(self.content(files, f"/{name}"), name.encode())
        for path in (
            "/",
            "",
            "/app",
            "/app/",
            "//vnc.html",
            "/vnc.html/",
            "vnc.html",
            "/VNC.html",
            "/app//ui.js",
        ):
            self.assertIsNone(files.find(path), path)

    def test_index(self) -> None:
        """A directory's path with its slash is its index.html; without the slash, it leads there."""
        self.write("index.html", "app/index.html", "app/a/index.html")
        files = self.files()
        for path, name in (("/", "index.html"), ("/app/", "app/index.html"), ("/app/a/", "app/a/index.html")):
            self.assertEqual(self.content(files, path), name.encode())
        self.assertEqual(self.content(files, "/app"), b"app/")
        self.assertEqual(self.content(files, "/app/a"), b"a/")
        self.assertIsNone(files.find(""))

    def test_index_below_a_prefix(self) -> None:
        """The prefix itself leads to the index below it."""
        self.write("index.html")
        files = self.files(web=str(self.web), host_path_prefix="/a/b")
        self.assertEqual(self.content(files, ""), b"b/")
        self.assertEqual(self.content(files, "/"), b"index.html")

    def test_hidden(self) -> None:
        """Dot files, files in dot directories and names that need encoding are not served."""
        self.write(".env", ".git/config", "a/.htaccess", "with space.html", "per%cent", "que?ry", "ü.html")
        self.write("back\\slash", "semi;colon", "co:lon", "new\nline")
        self.write("good-1_2.~js")
        self.assertEqual(list(self.files()._map), ["/good-1_2.~js"])

    def test_links(self) -> None:
        """A link is served if it leads to a file below the directory, however it gets there."""
        self.write("vnc.html", "..data/index.html", "sub/x.js")
        self.write("secret.txt", below="")
        self.write("secret.txt", below="web-two")
        for name, target in (
            ("vnc_auto.html", "vnc.html"),
            ("index.html", "..data/index.html"),
            ("sub/up.html", "../vnc.html"),
            ("around.html", "../web/vnc.html"),
            ("absolute.html", str(self.web / "vnc.html")),
            ("outside.txt", "../secret.txt"),
            ("sibling.txt", "../web-two/secret.txt"),
            ("absolute.txt", str(self.base / "secret.txt")),
            ("twice.txt", "outside.txt"),
            ("dangling.txt", "nothing"),
            ("loop.txt", "loop.txt"),
            ("passwd", "/etc/passwd"),
            ("directory", "sub"),
            ("above", ".."),
            ("itself", "."),
            ("root", "/"),
        ):
            (self.web / name).symlink_to(target)
        files = self.files()
        served = {"around.html", "absolute.html", "index.html", "sub/up.html", "sub/x.js"}
        served |= {"vnc.html", "vnc_auto.html", ""}
        self.assertEqual(set(files._map), {f"/{name}" for name in served})
        self.assertEqual(self.content(files, "/vnc_auto.html"), b"vnc.html")
        self.assertEqual(self.content(files, "/index.html"), b"..data/index.html")

    def test_the_directory_itself_may_be_a_link(self) -> None:
        """The directory that a setting names may itself be a link."""
        self.write("vnc.html")
        (self.base / "link").symlink_to("web")
        self.assertEqual(self.content(self.files(web=str(self.base / "link")), "/vnc.html"), b"vnc.html")

    def test_what_is_no_file(self) -> None:
        """Pipes and sockets are left out, and nothing waits for them."""
        os.mkfifo(self.web / "pipe.html")
        self.write("vnc.html")
        self.assertEqual(list(self.files()._map), ["/vnc.html"])

    def test_a_file_that_is_replaced_by_a_link(self) -> None:
        """Between looking and reading a file may have become a link; that is not followed."""
        self.write("vnc.html")
        self.write("secret.txt", below="")
        really = os.open

        def late(path: Path, flags: int) -> int:
            path.unlink()
            path.symlink_to(self.base / "secret.txt")
            return really(path, flags)

        with mock.patch("wsproxy.web.static_files.os.open", late):
            self.assertIn(f"cannot read {self.web / 'vnc.html'}: ", self.fault())

    def test_fields(self) -> None:
        """Each file says what it is, from when it is, and what a browser may do with it."""
        self.write("vnc.html", content=b"<script>x</script>")
        os.utime(self.web / "vnc.html", (0, 784111777))
        found = self.fields(
            self.files(web=str(self.web), frame_ancestors=("https://lab.example",)), "/vnc.html"
        )
        self.assertIn("Content-Type: text/html; charset=utf-8", found)
        self.assertIn("Last-Modified: Sun, 06 Nov 1994 08:49:37 GMT", found)
        (policy,) = (line for line in found if line.startswith("Content-Security-Policy: "))
        self.assertIn("script-src 'self' 'sha256-", policy)
        self.assertTrue(policy.endswith("; frame-ancestors https://lab.example"))

    def test_a_time_that_cannot_be(self) -> None:
        """A time in the future is not told (RFC 9110 section 8.8.2.1), nor one before there were any."""
        self.write("vnc.html")
        for modified in (2**33, -(2**33)):
            os.utime(self.web / "vnc.html", (0, modified))
            (line,) = (line for line in self.fields(self.files(), "/vnc.html") if "Last-Modified" in line)
            self.assertNotRegex(line, "2242|16[0-9][0-9]")


class Faults(WebFilesCase):
    def test_no_directory(self) -> None:
        """If a setting names no directory, the fault names the setting and the path."""
        self.write("file")
        for path, why in (("nothing", "No such file"), ("web/file", "Not a directory")):
            fault = self.fault(web=str(self.base / path))
            place = self.base / path
            self.assertTrue(fault.startswith(f"web is '{place}'; cannot read {place}: {why}"), fault)

    def test_loop_of_links(self) -> None:
        """So is a link that leads to itself."""
        (self.base / "loop").symlink_to("loop")
        self.assertIn("cannot read", self.fault(web=str(self.base / "loop")))

    def test_too_many(self) -> None:
        """A directory that is too full is most likely the wrong one; files that are not served count, too."""
        self.write(*(f"{number}.js" for number in range(4)), ".hidden")
        with mock.patch("wsproxy.web.static_files._MAX_ENTRIES", 5):
            self.files()
        with mock.patch("wsproxy.web.static_files._MAX_ENTRIES", 4):
            self.assertIn("it has more than 4 files; is it the right directory?", self.fault())

    def test_too_large(self) -> None:
        """So is one with a file, or with files, that are too large."""
        self.write("a.js", "b.js", content=bytes(100))
        for limit, most, said in (
            ("_MAX_FILE", 99, "a.js in it is larger than 99 bytes"),
            ("_MAX_IN_ALL", 199, "its files are larger than 199 bytes in all; is it the right directory?"),
        ):
            with mock.patch(f"wsproxy.web.static_files.{limit}", most):
                self.assertTrue(self.fault().endswith(said))
            with mock.patch(f"wsproxy.web.static_files.{limit}", most + 1):
                self.files()

    def test_libraries(self) -> None:
        """A directory for noVNC or xterm.js has to hold it."""
        for setting, missing in (("novnc", "core/rfb.js"), ("xterm", "lib/xterm.mjs")):
            fault = self.fault(console_page=True, **{setting: str(self.web)})
            expected = f"there is no {missing} in it; name the directory that has it"
            self.assertEqual(fault, f"{setting} is '{self.web}'; {expected}")


class Page(WebFilesCase):
    def test_off(self) -> None:
        """Without a setting nothing is served."""
        files = StaticFiles(self.config().file_rules)
        self.assertEqual(dict(files._map), {})
        self.assertIsNone(files.missing)

    def test_page(self) -> None:
        """The page is at its path, which is also found without the slash; its policy is the narrow one."""
        files = self.files(console_page=True)
        page = self.content(files, "/console/")
        assert page is not None
        self.assertTrue(page.startswith(b"<!DOCTYPE html>"))
        self.assertEqual(self.content(files, "/console"), b"console/")
        policy = [line for line in self.fields(files, "/console/") if "Policy: default" in line]
        self.assertNotIn("unsafe", str(policy))
        self.assertIn("frame-ancestors 'none'", str(policy))

    def test_libraries(self) -> None:
        """Of noVNC and xterm.js there is what the page needs, and nothing more."""
        novnc = ("core/rfb.js", "core/util/x.js", "vendor/pako/y.js", "vnc.html", "app/ui.js", "package.json")
        xterm = ("lib/xterm.mjs", "css/xterm.css", "src/x.ts", "README.md")
        self.write(*novnc, below="novnc")
        self.write(*xterm, below="xterm")
        names = {"novnc": str(self.base / "novnc"), "xterm": str(self.base / "xterm")}
        files = self.files(console_page=True, **names)
        for library, served in (("novnc", novnc[:3]), ("xterm", xterm[:2])):
            for name in served:
                self.assertEqual(self.content(files, f"/console/{library}/{name}"), name.encode())
        for path in ("novnc/vnc.html", "novnc/app/ui.js", "novnc/", "xterm/src/x.ts", "xterm/README.md"):
            self.assertIsNone(files.find(f"/console/{path}"))
        self.assertIsNone(files.missing)
        self.assertNotIn("unsafe", str(self.fields(files, "/console/")))

    def test_links_out_of_a_part(self) -> None:
        """A link from one part of a library to another stays inside."""
        self.write("core/rfb.js", "vendor/x.js", below="novnc")
        (self.base / "novnc/core/y.js").symlink_to("../vendor/x.js")
        files = self.files(console_page=True, novnc=str(self.base / "novnc"))
        self.assertEqual(self.content(files, "/console/novnc/core/y.js"), b"vendor/x.js")

    def test_installed_novnc(self) -> None:
        """An installed noVNC is found; one that is named counts more."""
        self.write("core/rfb.js", below="installed")
        self.write("core/rfb.js", below="other", content=b"other")
        self.assertEqual(
            self.content(self.files(console_page=True), "/console/novnc/core/rfb.js"), b"core/rfb.js"
        )
        files = self.files(console_page=True, novnc=str(self.base / "other"))
        self.assertEqual(self.content(files, "/console/novnc/core/rfb.js"), b"other")

    def test_something_else_is_installed(self) -> None:
        """If the default directory holds no noVNC, it is ignored, because no setting names it."""
        self.write("vnc.html", below="installed")
        self.assertIsNotNone(self.files(console_page=True).missing)

    def test_no_novnc(self) -> None:
        """Without noVNC the page is served all the same, and the log says what is missing, once."""
        with self.assertLogs("wsproxy.gateway", "WARNING") as logs:
            files = check_files(self.config(console_page=True))
        self.assertIn("--novnc DIR", logs.output[0])
        self.assertEqual(len(logs.output), 1)
        self.assertIsNotNone(files.find("/console/"))
        self.assertIsNone(files.find("/console/novnc/core/rfb.js"))
        with self.assertNoLogs("wsproxy"):
            check_files(self.config())

    def test_page_and_web(self) -> None:
        """The page comes before a web client's files of the same names; the others are there beside it."""
        self.write("vnc.html", "console/index.html", "console/more.html")
        files = self.files(console_page=True, web=str(self.web))
        self.assertNotEqual(self.content(files, "/console/"), b"console/index.html")
        self.assertEqual(self.content(files, "/console/more.html"), b"console/more.html")
        self.assertEqual(self.content(files, "/vnc.html"), b"vnc.html")


class Reload(WebFilesCase):
    def test_no_request_reads_a_file(self) -> None:
        """Changes to the directory after the start have no effect before a reload."""
        self.write("a.js", "b.js")
        files = self.files()
        self.write("a.js", "c.js", content=b"new")
        (self.web / "b.js").unlink()
        contents = [self.content(files, f"/{name}.js") for name in "abc"]
        self.assertEqual(contents, [b"a.js", b"b.js", None])
        files.reload()
        contents = [self.content(files, f"/{name}.js") for name in "abc"]
        self.assertEqual(contents, [b"new", None, b"new"])

    def test_signal(self) -> None:
        """A gateway's reload, which SIGHUP is, reads them, too."""
        self.write("a.js")
        gateway = Gateway(self.config(web=str(self.web)))
        self.write("a.js", content=b"new")
        gateway.reload()
        self.assertEqual(self.content(gateway.files, "/a.js"), b"new")

    def test_a_fault(self) -> None:
        """If the files cannot be read any more, those from before stay, and the log says so."""
        self.write("a.js")
        files = self.files()
        self.web.rename(self.base / "elsewhere")
        with self.assertLogs("wsproxy.web_files", "ERROR") as logs:
            files.reload()
        self.assertIn("the files stay as they were", logs.output[0])
        self.assertEqual(self.content(files, "/a.js"), b"a.js")
