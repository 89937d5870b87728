"""Headless Chromium, driven through chromedriver's HTTP interface with the standard library."""

import base64
import json
import shutil
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

ARGUMENTS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--hide-scrollbars"),
]
AVAILABLE = bool(shutil.which("chromedriver") and (shutil.which("chromium") or shutil.which("google-chrome")))


class Browser:
    """One window; use as a context manager.

    Arguments:
        width, height: Of the window in pixels.
    """

    def __init__(self, width: int = 1400, height: int = 1000):
        self.size = f"--window-size={width},{height}"

    def __enter__(self) -> "Browser":
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self._profile = tempfile.mkdtemp()
        self._driver = subprocess.Popen(
            ["chromedriver", f"--port={port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        self._url = f"http://127.0.0.1:{port}"
        self._wait_for_driver()
        options = {"args": [*ARGUMENTS, self.size, f"--user-data-dir={self._profile}"]}
        wanted = {
            "browserName": "chrome",
            "goog:chromeOptions": options,
            "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"},
        }
        self._url += (
            f"/session/{self._call('POST', '/session', {'capabilities': {'alwaysMatch': wanted}})['sessionId']}"
        )
        return self

    def __exit__(self, *exception) -> None:
        try:
            self._call("DELETE", "")
        finally:
            self._driver.terminate()
            self._driver.wait(10)
            shutil.rmtree(self._profile, ignore_errors=True)

    def open(self, url: str) -> None:
        self._call("POST", "/url", {"url": url})

    def run(self, code: str, *arguments: Any) -> Any:
        """Run JavaScript; what it returns comes back."""
        return self._call("POST", "/execute/sync", {"script": code, "args": list(arguments)})

    def wait(self, condition: str, seconds: float = 20) -> None:
        """Wait until a JavaScript expression is true."""
        end = time.monotonic() + seconds
        while not self.run(f"return !!({condition})"):
            assert time.monotonic() < end, f"{condition} did not become true; console: {self.console()}"
            time.sleep(0.05)

    def drag(self, x: float, y: float, to_x: float, to_y: float, steps: int = 10) -> None:
        """Press at a point, move in steps, and let go."""
        moves = [(x + (to_x - x) * i / steps, y + (to_y - y) * i / steps) for i in range(1, steps + 1)]
        actions: list[dict[str, Any]] = [_move(x, y, 0), {"type": "pointerDown", "button": 0}]
        actions += [_move(*move, 15) for move in moves] + [{"type": "pointerUp", "button": 0}]
        self._call(
            "POST",
            "/actions",
            {
                "actions": [
                    {"type": "pointer", "id": "mouse", "parameters": {"pointerType": "mouse"}, "actions": actions}
                ]
            },
        )

    def emulate(self, dark: bool = False, width: int = 0) -> None:
        """Show pages as a reader with a dark theme sees them, or one whose window is so narrow that it cannot be had by
        asking for it; 0 = the window as it is.
        """
        theme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.devtools("Emulation.setEmulatedMedia", features=theme)
        if width:
            self.devtools(
                "Emulation.setDeviceMetricsOverride", width=width, height=1000, deviceScaleFactor=1, mobile=False
            )

    def devtools(self, method: str, **arguments: Any) -> Any:
        """Call a method of Chromium's own protocol."""
        return self._call("POST", "/goog/cdp/execute", {"cmd": method, "params": arguments})

    def console(self) -> list[str]:
        """Errors of the console so far."""
        return [
            line["message"] for line in self._call("POST", "/se/log", {"type": "browser"}) if line["level"] == "SEVERE"
        ]

    def requests(self) -> set[str]:
        """Every address that the page asked for so far, over the network."""
        messages = [
            json.loads(line["message"])["message"] for line in self._call("POST", "/se/log", {"type": "performance"})
        ]
        urls = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
        urls += [m["params"]["url"] for m in messages if m["method"] == "Network.webSocketCreated"]
        return {url for url in urls if url.split(":")[0] in ("http", "https", "ws", "wss", "file", "ftp")}

    def screenshot(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self._call("GET", "/screenshot")))

    def _wait_for_driver(self) -> None:
        for _ in range(100):
            try:
                self._call("GET", "/status")
                return
            except OSError:
                time.sleep(0.1)

    def _call(self, method: str, path: str, data: Any = None) -> Any:
        body = None if data is None else json.dumps(data).encode()
        request = urllib.request.Request(
            self._url + path, data=body, method=method, headers={"Content-Type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return json.loads(answer.read())["value"]
        except urllib.error.HTTPError as error:
            raise AssertionError(json.loads(error.read())["value"]["message"]) from None


def _move(x: float, y: float, milliseconds: int) -> dict[str, Any]:
    return {"type": "pointerMove", "duration": milliseconds, "x": round(x), "y": round(y), "origin": "viewport"}
