"""Runs in a node: commands that come from the rig, each as root and to its end.

One connection is one command: a line of JSON with its words, then a line of JSON with what it printed and its exit
code. Its output goes through files, so that a daemon it leaves behind holds nobody up. A command whose asker hangs up
is killed.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socketserver
import subprocess
import sys
import tempfile


class Command(socketserver.StreamRequestHandler):
    """One of them."""

    def handle(self) -> None:
        """Run what the first line says."""
        asked = json.loads(self.rfile.readline())
        with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors, tempfile.TemporaryFile() as given:
            given.write(asked["input"].encode())
            given.seek(0)
            try:
                running = subprocess.Popen(
                    asked["argv"], stdin=given, stdout=output, stderr=errors, start_new_session=True, cwd="/"
                )
            except OSError as failure:
                self._answer(127, "", str(failure))
                return
            if self._is_over(running):
                output.seek(0)
                errors.seek(0)
                self._answer(running.returncode, *(file.read().decode(errors="replace") for file in (output, errors)))

    def _is_over(self, running: subprocess.Popen[bytes]) -> bool:
        """False: nobody waits for it any more, and it was killed."""
        ended = os.pidfd_open(running.pid)
        try:
            readable, _, _ = select.select([ended, self.connection], [], [])
        finally:
            os.close(ended)
        is_over = ended in readable
        if not is_over:
            os.killpg(running.pid, signal.SIGKILL)
        running.wait()
        return is_over

    def _answer(self, exit_code: int, output: str, errors: str) -> None:
        answer = {"exit_code": exit_code, "output": output, "errors": errors}
        self.wfile.write(json.dumps(answer).encode() + b"\n")


class Server(socketserver.ThreadingTCPServer):
    """On the node's address, which only the rig's network knows."""

    allow_reuse_address = True
    daemon_threads = True


if __name__ == "__main__":
    with Server(("", int(sys.argv[1])), Command) as server:
        server.serve_forever()
