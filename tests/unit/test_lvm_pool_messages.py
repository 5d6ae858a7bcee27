"""When LVM has died over a change of a thin pool, and what is done before something is removed from that pool."""

from __future__ import annotations

from collections.abc import Sequence
from typing import BinaryIO

import pytest

from node_agent.backends.lvm.command import Lvm
from node_agent.backends.lvm.pool_messages import PoolMessages, noted
from tests.unit.test_lvm_renewal import snapshot
from ullage.errors import CommandFailedError, PoolUnavailableError
from ullage.run import Finished

GROUP = """vg-x {{
id = "U1"
description = "{{"
tags = ["of/{{"]
physical_volumes {{

pv0 {{
device = "/dev/vda"
}}
}}
logical_volumes {{

{pools}
}}
}}
"""
POOL = """{name} {{
segment_count = 1

segment1 {{
type = "thin-pool"
transaction_id = 10
{messages}
}}
}}
"""
DELETE = "message1 {\ndelete = 77\n}"
VOLUME = snapshot("s-a", "a")


def metadata(**messages: str) -> str:
    """A group's metadata, with what is noted for each of its pools."""
    pools = (POOL.format(name=name.replace("_", "-"), messages=each) for name, each in messages.items())
    return GROUP.format(pools="\n".join(pools))


NONE, LEFT = metadata(pool_0="", other=DELETE), metadata(pool_0=f'{DELETE}\nmessage2 {{\ncreate = "s-b"\n}}')


class Scripted:
    """A Runner whose devices say one thing after the other, the last for ever, and that fails what it is told to."""

    def __init__(self, said: dict[str, list[str]], *, failing: str = "") -> None:
        self._said = said
        self._failing = failing
        self.looks: list[str] = []
        self.changed: list[tuple[str, ...]] = []

    def look(
        self,
        argv: Sequence[str],
        *,
        timeout_seconds: float,  # noqa: ARG002 - a Runner
        stdin: str = "",  # noqa: ARG002
        accepted: Sequence[int] = (0,),  # noqa: ARG002
        into: BinaryIO | None = None,  # noqa: ARG002
    ) -> Finished:
        assert (argv[1], *argv[-3:-1]) == ("pvck", "--dump", "metadata")
        assert "--devices" not in argv
        device = argv[-1]
        self.looks.append(device)
        texts = self._said[device]
        text = texts.pop(0) if len(texts) > 1 else texts[0]
        if not text:
            raise CommandFailedError(argv=argv, exit_code=5, stderr="no metadata here")
        return Finished(argv=tuple(argv), exit_code=0, stdout=text, stderr="", seconds=0.0)

    def change(self, argv: Sequence[str], *, stdin: str = "", accepted: Sequence[int] = (0,)) -> Finished:  # noqa: ARG002
        if argv[1] == self._failing:
            raise CommandFailedError(argv=argv, exit_code=5, stderr="no")
        self.changed.append(tuple(argv))
        return Finished(argv=tuple(argv), exit_code=0, stdout="", stderr="", seconds=0.0)


def messages(runner: Scripted, *devices: str) -> PoolMessages:
    return PoolMessages(Lvm(runner=runner, flush=lambda _: None), lambda _: devices or ("/dev/vda",))


def removed(under_test: PoolMessages, *, is_failing: bool = False) -> None:
    with under_test.ended(VOLUME.pool, VOLUME):
        if is_failing:
            raise CommandFailedError(argv=("lvm", "lvremove"), exit_code=5, stderr="no")


def created(under_test: PoolMessages, *, is_failing: bool) -> None:
    with under_test.doubted(VOLUME.pool):
        if is_failing:
            raise CommandFailedError(argv=("lvm", "lvcreate"), exit_code=5, stderr="no")


def test_a_note_is_found_in_the_pool_that_has_it() -> None:
    assert noted(NONE) == {"other"}
    assert noted(LEFT) == {"pool-0"}
    assert noted(metadata(pool_0=DELETE, other=DELETE)) == {"pool-0", "other"}
    assert noted("") == noted("}\n}\nmessage1 {\n") == frozenset()


def test_where_nothing_is_left_it_is_looked_once_and_nothing_is_changed() -> None:
    runner = Scripted({"/dev/vda": [NONE]})
    under_test = messages(runner)
    removed(under_test)
    removed(under_test)
    assert (runner.looks, runner.changed) == (["/dev/vda"], [])


def test_what_is_left_is_ended_by_a_snapshot_that_is_marked_to_go_and_goes() -> None:
    runner = Scripted({"/dev/vda": [LEFT]})
    under_test = messages(runner)
    with under_test.ended(VOLUME.pool, VOLUME):
        made, gone = runner.changed
    assert made[1] == "lvcreate"
    assert made[-1] == "vg-x/s-a"
    name = made[made.index("--name") + 1]
    assert {f"ullage.io/volume={name}", "ullage.io/state=deleting"} <= set(made)
    assert (gone[1], gone[-1]) == ("lvremove", f"vg-x/{name}")
    removed(under_test)
    assert len(runner.changed) == 2


def test_any_device_may_tell_and_one_that_cannot_is_passed_over() -> None:
    runner = Scripted({"/dev/vda": [NONE], "/dev/vdb": [""], "/dev/vdc": [LEFT]})
    removed(messages(runner, "/dev/vda", "/dev/vdb", "/dev/vdc"))
    assert [argv[1] for argv in runner.changed] == ["lvcreate", "lvremove"]


@pytest.mark.parametrize("is_creation", [False, True])
def test_after_a_change_that_failed_it_is_looked_again(*, is_creation: bool) -> None:
    runner = Scripted({"/dev/vda": [NONE, LEFT]})
    under_test = messages(runner)
    removed(under_test)
    failing = created if is_creation else removed
    with pytest.raises(CommandFailedError):
        failing(under_test, is_failing=True)
    removed(under_test)
    assert [argv[1] for argv in runner.changed] == ["lvcreate", "lvremove"]


def test_nothing_is_removed_while_lvm_cannot_end_what_it_has_begun() -> None:
    under_test = messages(Scripted({"/dev/vda": [LEFT]}, failing="lvcreate"))
    for _ in range(2):
        with pytest.raises(PoolUnavailableError, match="thin pool vg-x/pool-0 and cannot end it"):
            removed(under_test)


def test_a_snapshot_that_failed_after_it_had_ended_what_was_left_is_enough() -> None:
    runner = Scripted({"/dev/vda": [LEFT, NONE]}, failing="lvcreate")
    removed(messages(runner))
    assert runner.changed == []
