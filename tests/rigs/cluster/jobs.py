"""Jobs without kubelets: what a Job's one container would run is run as a process, and the Job is told how it ended.

It runs with our program in the place of the image's, as the Job's account: what that may not do, it cannot do.
"""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.rigs.cluster.api import Api, Json, Refusal
from tests.rigs.host import RigError
from ullage.kube.meta import timestamp

POLL_SECONDS = 0.2
RUN_SECONDS = 120.0
OURS = "ullage"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """A Job that has run."""

    name: str
    code: int
    output: str


class Jobs:
    """Runs the Jobs of a namespace, for as long as the context lasts."""

    def __init__(self, api: Api, namespace: str, kubeconfig_for: Callable[[str], Path]) -> None:
        """`kubeconfig_for` makes one for an account of the namespace."""
        self._api = api
        self._path = f"/apis/batch/v1/namespaces/{namespace}/jobs"
        self._kubeconfig_for = kubeconfig_for
        self._is_over = threading.Event()
        self._seen: set[str] = set()
        self._thread = threading.Thread(target=self._run, name="jobs", daemon=True)
        self.ended: list[Ended] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._is_over.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._is_over.wait(POLL_SECONDS):
            for job in self._api.items(self._path):
                if job["metadata"]["uid"] not in self._seen and not job["status"].get("conditions"):
                    self._seen.add(job["metadata"]["uid"])
                    self.ended.append(self._done(job))

    def _done(self, job: Json) -> Ended:
        name = job["metadata"]["name"]
        pod = job["spec"]["template"]["spec"]
        (container,) = pod["containers"]
        program, *words = container["command"]
        if program != OURS:
            raise RigError(f"the Job {name} runs {program}, and only {OURS} is known here")
        kubeconfig = self._kubeconfig_for(pod["serviceAccountName"])
        ran = subprocess.run(
            (sys.executable, "-m", "ullage.cli", *words, "--kubeconfig", str(kubeconfig)),
            check=False,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=RUN_SECONDS,
        )
        self._tell(name, has_failed=ran.returncode != 0)
        return Ended(name=name, code=ran.returncode, output=ran.stdout)

    def _tell(self, name: str, *, has_failed: bool) -> None:
        now = timestamp()
        words = ("FailureTarget", "Failed") if has_failed else ("SuccessCriteriaMet", "Complete")
        conditions = [{"type": word, "status": "True", "lastTransitionTime": now} for word in words]
        end = {"failed": 1} if has_failed else {"succeeded": 1, "completionTime": now}
        status = {"startTime": now, "conditions": conditions, **end}
        try:
            self._api.patch(f"{self._path}/{name}/status", {"status": status})
        except Refusal as refusal:
            raise RigError(f"the Job {name} cannot be told how it ended: {refusal}") from refusal
