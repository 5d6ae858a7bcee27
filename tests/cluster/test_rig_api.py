"""The rig's API server: what is written stays through its deaths, and it knows who asks."""

from __future__ import annotations

import subprocess
import sys
import threading
from http import HTTPStatus
from pathlib import Path

import pytest

from tests.contract.faults import until
from tests.rigs.cluster.api import Refusal
from tests.rigs.cluster.control_plane import API_SERVER, ETCD, ControlPlane
from tests.rigs.cluster.process import Process
from tests.rigs.host import RigError

NODES = "/api/v1/nodes"
CONFIG_MAPS = "/api/v1/namespaces/default/configmaps"


@pytest.mark.parametrize("name", [API_SERVER, ETCD])
def test_what_was_written_is_there_after_the_programs_were_killed_and_started(
    api_only: ControlPlane, name: str
) -> None:
    api = api_only.api()
    written = api.create(CONFIG_MAPS, {"metadata": {"name": f"before-{name}"}})
    before = api_only.process(name).pid
    api_only.kill(name)
    api_only.start(name)
    assert api_only.process(name).pid != before
    assert api.get(f"{CONFIG_MAPS}/before-{name}")["metadata"] == written["metadata"]


def test_a_node_s_token_says_its_node_and_may_do_nothing_yet(api_only: ControlPlane) -> None:
    admin = api_only.api()
    admin.create(NODES, {"metadata": {"name": "there"}})
    agent = api_only.api(api_only.token_for("ullage-system", "agent", "there"))
    who = agent.create("/apis/authentication.k8s.io/v1/selfsubjectreviews", {})["status"]["userInfo"]
    assert who["username"] == "system:serviceaccount:ullage-system:agent"
    assert who["extra"]["authentication.kubernetes.io/node-name"] == ["there"]
    with pytest.raises(Refusal, match="cannot list resource") as refusal:
        agent.get(NODES)
    assert refusal.value.status == HTTPStatus.FORBIDDEN


def test_after_a_compaction_and_a_restart_nobody_can_begin_in_the_past(api_only: ControlPlane) -> None:
    api = api_only.api()
    first = api.create(CONFIG_MAPS, {"metadata": {"name": "first"}})["metadata"]["resourceVersion"]
    for number in range(3):
        api.patch(f"{CONFIG_MAPS}/first", {"data": {"number": str(number)}})
    past = f"{CONFIG_MAPS}?resourceVersionMatch=Exact&limit=1&resourceVersion={first}"
    api_only.restart(API_SERVER)
    assert "data" not in api.items(past)[0]
    api_only.compact()
    api_only.restart(API_SERVER)
    with pytest.raises(Refusal) as refusal:
        api.get(past)
    assert refusal.value.status == HTTPStatus.GONE
    event = api.get(f"{CONFIG_MAPS}?watch=true&timeoutSeconds=1&resourceVersion={first}")
    assert event["type"] == "ERROR"
    assert event["object"]["code"] == HTTPStatus.GONE


def test_two_planes_beside_each_other_have_nothing_in_common(api_only: ControlPlane, tmp_path: Path) -> None:
    api_only.api().create(CONFIG_MAPS, {"metadata": {"name": "mine"}})
    with ControlPlane(tmp_path / "other", only_api=True) as other:
        assert other.api().find(f"{CONFIG_MAPS}/mine") is None


def test_a_program_that_ends_before_it_is_ready_is_told_with_the_end_of_its_log(tmp_path: Path) -> None:
    argv = [sys.executable, "-c", "print('no such disk'); raise SystemExit(3)"]
    process = Process(argv, tmp_path / "agent.log", is_ready=lambda: False)
    with pytest.raises(RigError, match=r"agent ended with 3 before it was ready:\nno such disk"):
        process.start()


def comm(pid: int) -> str:
    return Path(f"/proc/{pid}/comm").read_text(encoding="ascii").strip()


def test_a_program_outlives_the_thread_that_started_it_and_not_the_process(tmp_path: Path) -> None:
    log = tmp_path / "sleeper.log"
    process = Process(["sleep", "300"], log, is_ready=lambda: comm(process.pid) == "sleep")
    thread = threading.Thread(target=process.start)
    thread.start()
    thread.join()
    try:
        with pytest.raises(subprocess.TimeoutExpired):
            process._life().wait(1)
    finally:
        process.kill()
    rig = "import sys; from pathlib import Path; from tests.rigs.cluster.process import Process; "
    life = f"p = Process(['sleep', '300'], Path({str(log)!r}), lambda: True); p.start(); print(p.pid)"
    pid = subprocess.run([sys.executable, "-c", rig + life], check=True, capture_output=True, text=True).stdout.strip()
    until(lambda: not Path(f"/proc/{pid}").exists())
