"""A headless Chromium that runs one JavaScript module of a folder and hands back what it returns."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

_PAGE = """<!doctype html><meta charset="utf-8"><script type="module">
let answer;
try {
  const { main } = await import('/MODULE');
  answer = { result: await main() };
} catch (error) {
  answer = { error: `${error.name}: ${error.message}` };
}
await fetch('/answer', { method: 'POST', body: JSON.stringify(answer) });
</script>"""
_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
_TYPES = {".mjs": "text/javascript", ".wasm": "application/wasm", ".json": "application/json"}


def chromium() -> str:
    """The path of the browser; where the machine lacks it, the test is skipped, or fails in CI."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        path = shutil.which(name)
        if path is not None:
            return path
    if os.environ.get("CI") == "true":
        pytest.fail("chromium is not installed")
    pytest.skip("chromium is not installed")


def run_in_browser(folders: Mapping[str, Path], module: str, profile: Path, seconds: float = 120) -> Any:
    """What `main()` of a module returns, as JSON. `folders` are served under their names; `module` is the
    path of one of their files. `profile` is a new folder for the browser."""
    answers: list[dict[str, Any]] = []
    done = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            top, _, rest = unquote(self.path).lstrip("/").partition("/")
            path = folders[top] / rest if top in folders else None
            if self.path == "/":
                self._send(200, "text/html", _PAGE.replace("MODULE", module).encode())
            elif path is not None and path.is_file():
                self._send(200, _TYPES.get(path.suffix, "application/octet-stream"), path.read_bytes())
            else:
                self._send(404, "text/plain", b"")

        def do_POST(self) -> None:
            answers.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self._send(204, "text/plain", b"")
            done.set()

        def _send(self, status: int, kind: str, data: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://localhost:{server.server_address[1]}/"
        command = [chromium(), *_FLAGS, f"--user-data-dir={profile}", address]
        browser = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            assert done.wait(seconds), f"the page did not answer within {seconds} seconds"
        finally:
            browser.terminate()
            browser.wait(30)
            server.shutdown()
    (answer,) = answers
    assert "error" not in answer, answer["error"]
    return answer["result"]
