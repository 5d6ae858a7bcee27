"""An API server as far as `ullage extender` reads one: lists in pages, and watches, of objects that are there already.

  python -m bench.extender_api PORT NODES VOLUMES

It is a process of its own, so that its work is not the extender's. POST /bench/busy begins to change objects, 200 a
second; /bench/calm ends that; /bench/relist tells every watch that its past is forgotten, whereupon all is listed anew.
Each of them is answered with the number of objects that were listed so far.
"""

from __future__ import annotations

import itertools
import queue
import random
import sys
import threading
import time
from collections import defaultdict
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import msgspec

from bench.extender_objects import Size, changed, everything
from ullage.kube.meta import CLAIMS, LOGICAL_VOLUMES, NODE_STORAGES, Resource

CHANGES_PER_SECOND = 200
CHANGED = (NODE_STORAGES, NODE_STORAGES, LOGICAL_VOLUMES, CLAIMS)
"""Drawn from: every volume that comes or goes changes its node's report twice."""
QUIET_SECONDS = 30.0
"""A watch hears a bookmark when it has heard nothing else for so long."""
GONE = b'{"type":"ERROR","object":{"kind":"Status","code":410,"reason":"Expired","message":"too old"}}'


class Objects:
    """All of them, encoded, and who watches which."""

    def __init__(self, size: Size) -> None:
        """Takes half a minute for 15,000 nodes and 100,000 volumes."""
        self.by_path: defaultdict[str, list[bytes]] = defaultdict(list)
        self.lock = threading.Lock()
        self.version = 1
        self.listed = 0
        self._streams: defaultdict[str, list[queue.SimpleQueue[bytes]]] = defaultdict(list)
        for resource, fields in everything(size):
            self.by_path[resource.path()].append(msgspec.json.encode(fields))

    def page(self, path: str, first: int, limit: int) -> bytes:
        """Some of one kind, and where the next page begins."""
        with self.lock:
            items, version = self.by_path[path][first : first + limit], self.version
            self.listed += len(items)
            is_last = first + limit >= len(self.by_path[path])
        meta = {"resourceVersion": str(version), **({} if is_last else {"continue": str(first + limit)})}
        return b'{"metadata":%b,"items":[%b]}' % (msgspec.json.encode(meta), b",".join(items))

    def watch(self, path: str) -> queue.SimpleQueue[bytes]:
        """What happens from now on, line by line."""
        made: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        with self.lock:
            self._streams[path].append(made)
        return made

    def leave(self, path: str, stream: queue.SimpleQueue[bytes]) -> None:
        """Nobody reads it any more."""
        with self.lock:
            self._streams[path].remove(stream)

    def change(self, resource: Resource) -> None:
        """One object of this kind is another from now on."""
        path = resource.path()
        with self.lock:
            self.version += 1
            objects = self.by_path[path]
            place = random.randrange(len(objects))  # noqa: S311 - any
            objects[place] = msgspec.json.encode(changed(resource, msgspec.json.decode(objects[place]), self.version))
            for stream in self._streams[path]:
                stream.put(b'{"type":"MODIFIED","object":%b}' % objects[place])

    def forget(self) -> None:
        """Every watch ends, and cannot go on."""
        with self.lock:
            for stream in itertools.chain.from_iterable(self._streams.values()):
                stream.put(GONE)


class Server(ThreadingHTTPServer):
    """Of one cluster."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, port: int, objects: Objects) -> None:
        """Bound, and not serving yet."""
        super().__init__(("127.0.0.1", port), Handler)
        self.objects = objects
        self.is_busy = threading.Event()
        threading.Thread(target=self._change, name="changes", daemon=True).start()

    def _change(self) -> None:
        due = time.monotonic()
        for number in itertools.count():
            if not self.is_busy.is_set():
                self.is_busy.wait()
                due = time.monotonic()
            due += 1 / CHANGES_PER_SECOND
            time.sleep(max(0.0, due - time.monotonic()))
            self.objects.change(CHANGED[number % len(CHANGED)])


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    wbufsize = -1
    server: Server

    def do_GET(self) -> None:
        """A page or a watch."""
        asked = urlsplit(self.path)
        query = {key: values[-1] for key, values in parse_qs(asked.query).items()}
        if "watch" in query:
            self._watch(asked.path, float(query["timeoutSeconds"]))
        else:
            first, limit = int(query.get("continue", "0")), int(query.get("limit", "500"))
            self._answer(self.server.objects.page(asked.path, first, limit))

    def do_POST(self) -> None:
        """What the bench wants to happen."""
        match self.path:
            case "/bench/busy":
                self.server.is_busy.set()
            case "/bench/calm":
                self.server.is_busy.clear()
            case "/bench/relist":
                self.server.objects.forget()
        self._answer(str(self.server.objects.listed).encode())

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's name
        """Nothing."""

    def _answer(self, body: bytes) -> None:
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()

    def _watch(self, path: str, seconds: float) -> None:
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", "application/json")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.wfile.flush()
        ends = time.monotonic() + seconds
        stream = self.server.objects.watch(path)
        try:
            while (left := ends - time.monotonic()) > 0:
                try:
                    line = stream.get(timeout=min(left, QUIET_SECONDS))
                except queue.Empty:
                    meta = {"resourceVersion": str(self.server.objects.version)}
                    line = msgspec.json.encode({"type": "BOOKMARK", "object": {"metadata": meta}})
                self.wfile.write(b"%x\r\n%b\n\r\n" % (len(line) + 1, line))
                self.wfile.flush()
                if line is GONE:
                    break
            self.wfile.write(b"0\r\n\r\n")
            self.wfile.flush()
        except OSError:
            self.close_connection = True
        finally:
            self.server.objects.leave(path, stream)


def main(port: str, nodes: str, volumes: str) -> int:
    """Serve until the end of the process."""
    Server(int(port), Objects(Size(nodes=int(nodes), volumes=int(volumes)))).serve_forever()
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
