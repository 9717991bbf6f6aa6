"""OHIF's built files and Orthanc's DICOMweb behind one origin, because Orthanc answers no other."""

from __future__ import annotations

import http.client
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from urllib.parse import unquote, urlsplit

ROOT = Path(__file__).resolve().parents[2]
TYPES = {".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".wasm": "application/wasm"}
CONFIG = """
window.config = {
  routerBasename: '/', extensions: [], modes: [], customizationService: {}, showStudyList: true,
  maxNumberOfWebWorkers: 2, showWarningMessageForCrossOrigin: false, showCPUFallbackMessage: false,
  showLoadingIndicator: true, strictZSpacingForVolumeViewport: true, investigationalUseDialog: { option: 'never' },
  defaultDataSourceName: 'dicomweb',
  dataSources: [{
    namespace: '@ohif/extension-default.dataSourcesModule.dicomweb', sourceName: 'dicomweb',
    configuration: {
      friendlyName: 'Orthanc', name: 'orthanc', wadoUriRoot: '/dicom-web', qidoRoot: '/dicom-web',
      wadoRoot: '/dicom-web', qidoSupportsIncludeField: false, imageRendering: 'wadors', thumbnailRendering: 'wadors',
      enableStudyLazyLoad: true, supportsFuzzyMatching: false, supportsWildcard: true, staticWado: false,
      singlepart: 'bulkdata,video,pdf', bulkDataURI: { enabled: true, relativeResolution: 'studies' },
      omitQuotationForMultipartRequest: true,
    },
  }],
};
"""


def dist() -> Path | None:
    """Where tests/install-peers.sh has put the built viewer."""
    found = ROOT / ".venv-ohif" / "dist"
    return found if (found / "index.html").exists() else None


class Origin:
    """``http://127.0.0.1:PORT``: the viewer, and below /dicom-web/ what answers at ``port`` of loopback."""

    def __init__(self, files: Path, port: int) -> None:
        handler = type("Handler", (_Handler,), {"files": files, "port": port})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Origin:
        self._thread.start()
        return self

    def __exit__(self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)


class _Handler(BaseHTTPRequestHandler):
    files: Path
    port: int
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """A file, the index for what the viewer routes by itself, or what Orthanc says."""
        path = unquote(urlsplit(self.path).path)
        if path.startswith("/dicom-web/"):
            self._forward()
            return
        if path == "/app-config.js":
            self._answer(200, "text/javascript", CONFIG.encode())
            return
        file = (self.files / path.lstrip("/")).resolve()
        if not file.is_relative_to(self.files.resolve()) or not file.is_file():
            file = self.files / "index.html"
        self._answer(200, TYPES.get(file.suffix, "application/octet-stream"), file.read_bytes())

    def _forward(self) -> None:
        there = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        # Host as it came: Orthanc makes the addresses of bulk data from it.
        headers = {k: v for k, v in self.headers.items() if k.lower() not in ("connection", "accept-encoding")}
        try:
            there.request("GET", self.path, headers=headers)
            answer = there.getresponse()
            data = answer.read()
            self._answer(answer.status, answer.getheader("Content-Type", ""), data)
        finally:
            there.close()

    def _answer(self, status: int, kind: str, data: bytes) -> None:
        try:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(data)))
            self.send_header("Cache-Control", "no-store" if kind == "text/html" else "max-age=3600")
            self.send_header("Cross-Origin-Opener-Policy", "same-origin")
            self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
            self.end_headers()
            self.wfile.write(data)
        except OSError:
            self.close_connection = True  # the browser has gone on to another page

    def log_message(self, *_: object) -> None:
        """Quiet."""
