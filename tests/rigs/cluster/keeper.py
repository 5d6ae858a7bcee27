"""What kubelet is to the containers of a Pod: a program that ends is started again."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from tests.rigs.cluster.process import Process

AGAIN_SECONDS = 0.5


class Keeper:
    """Starts programs, and starts again those that end, until its own end."""

    def __init__(self, processes: Sequence[Process]) -> None:
        """Nothing runs yet."""
        self._processes = processes
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="keeper")

    def start(self) -> None:
        """Start them and wait until all are ready; raises RigError, and then none is left running."""
        try:
            for process in self._processes:
                process.begin()
            for process in self._processes:
                process.wait_until_ready()
        except BaseException:
            self._kill()
            raise
        self._thread.start()

    def end(self) -> None:
        """End them for good."""
        self._is_over.set()
        if self._thread.ident is not None:
            self._thread.join()
        self._kill()

    def _kill(self) -> None:
        for process in self._processes:
            process.kill()

    def _keep(self) -> None:
        while not self._is_over.wait(AGAIN_SECONDS):
            for process in self._processes:
                if not process.is_alive():
                    process.begin()
