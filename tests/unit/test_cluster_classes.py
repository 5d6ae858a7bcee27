"""Device classes of a node: by its labels, from their objects, and from the file that the last process left."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from node_agent.cluster.classes import Classes
from tests.unit.cluster_doubles import Heard, eventually
from tests.unit.kube_doubles import ApiServer
from ullage.errors import StoreBusyError
from ullage.kube.api import Api
from ullage.kube.device_class import DeviceClassObject
from ullage.kube.foreign import Node
from ullage.kube.informer import Informer
from ullage.kube.meta import DEVICE_CLASSES, NODES
from ullage.model import DeviceClass, NodeName

NODE = NodeName("node-1")


@dataclass
class Scene:
    folder: Path
    api: ApiServer = field(default_factory=ApiServer)
    heard: Heard = field(default_factory=Heard)
    served: list[Sequence[str]] = field(default_factory=list)
    is_busy: bool = False
    made: int = 0
    objects: Informer[DeviceClassObject] = field(init=False)
    nodes: Informer[Node] = field(init=False)
    classes: Classes = field(init=False)

    def __post_init__(self) -> None:
        api = Api(self.api)
        self.objects = Informer(api, DEVICE_CLASSES, DeviceClassObject)
        self.nodes = Informer(api, NODES, Node)
        self.classes = self.reborn()
        self.objects.on_change(lambda _before, _after: self.classes.heard())

    def reborn(self) -> Classes:
        return Classes(
            node=NODE,
            objects=self.objects,
            nodes=self.nodes,
            configure=self._configure,
            kept=self.folder / "agent.classes",
            events=self.heard,
        )

    def begin(self) -> None:
        for each in (self.objects, self.nodes):
            each.start()
            assert each.wait_until_synced(5)

    def _configure(self, classes: Sequence[DeviceClass]) -> None:
        if self.is_busy:
            raise StoreBusyError("vg0 is busy")
        self.served.append([each.name for each in classes])

    def has(self, name: str, **spec: object) -> None:
        fields = {"type": "file", "directory": f"/srv/{name}", **spec}
        known = {key: value for key, value in fields.items() if value is not None}
        self.made += 1
        meta = {"name": name, "creationTimestamp": f"2026-01-01T00:00:{self.made:02}Z"}
        self.api.put(DEVICE_CLASSES, {"metadata": meta, "spec": known})

    def labelled(self, **labels: str) -> None:
        self.api.put(NODES, {"metadata": {"name": NODE, "labels": labels}})


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    scene = Scene(tmp_path)
    yield scene
    scene.classes.stop()
    scene.objects.stop()
    scene.nodes.stop()


def test_a_class_is_served_where_the_node_has_its_labels(scene: Scene) -> None:
    scene.labelled(disk="nvme", zone="a")
    scene.has("everywhere")
    scene.has("here", nodeSelector={"disk": "nvme"})
    scene.has("there", nodeSelector={"disk": "hdd"})
    scene.has("nearly", nodeSelector={"disk": "nvme", "zone": "b"})
    scene.begin()
    assert scene.classes.apply()
    assert scene.served == [["everywhere", "here"]]


def test_what_has_not_changed_is_not_configured_again(scene: Scene) -> None:
    scene.has("one")
    scene.begin()
    scene.classes.apply()
    assert not scene.classes.apply()
    assert scene.served == [["one"]]


def test_a_class_that_cannot_be_read_is_told_once_and_the_others_are_served(scene: Scene) -> None:
    scene.has("good")
    scene.has("bad", type="nonsense")
    scene.begin()
    scene.classes.apply()
    scene.has("better")
    scene.objects.wait("better", lambda each: each is not None, 5)
    scene.classes.apply()
    assert scene.served == [["good"], ["good", "better"]]
    assert scene.heard.told == [("DeviceClass", "bad", "InvalidConfiguration")]
    assert "type" in scene.heard.sentences[0]


def test_of_two_classes_that_contradict_each_other_the_older_is_served(scene: Scene) -> None:
    scene.has("older", directory="/srv/same", sparse=True)
    scene.has("a-newer", directory="/srv/same", sparse=False)
    pool = {"name": "pool0", "overprovisionRatio": 2}
    thin = {"type": "thin", "directory": None, "volumeGroups": ["nvme*"]}
    scene.has("thin", **thin, thinPool=pool)
    scene.has("thin-too", **thin, thinPool=pool)
    scene.has("thin-but", **(thin | {"volumeGroups": ["nvme1"]}), thinPool=pool | {"overprovisionRatio": 3})
    scene.begin()
    scene.classes.apply()
    assert set(scene.served[-1]) == {"older", "thin", "thin-too"}
    assert {name for _, name, _ in scene.heard.told} == {"a-newer", "thin-but"}


def test_a_new_process_knows_what_the_last_one_served(scene: Scene) -> None:
    scene.has("one", sparse=True, mkfsOptions={"ext4": ["-K"]})
    scene.has("elsewhere", nodeSelector={"a": "b"})
    scene.begin()
    scene.classes.apply()
    (kept,) = scene.reborn().last_known()
    assert (kept.name, kept.directory, kept.is_sparse, kept.mkfs_options) == (
        "one",
        "/srv/one",
        True,
        (("ext4", ("-K",)),),
    )


def test_without_a_file_or_with_a_broken_one_nothing_is_known(scene: Scene) -> None:
    assert scene.reborn().last_known() == ()
    (scene.folder / "agent.classes").write_text("[{")
    assert scene.reborn().last_known() == ()
    (scene.folder / "agent.classes").unlink()
    (scene.folder / "agent.classes").mkdir()
    assert scene.reborn().last_known() == ()


def test_a_file_that_cannot_be_written_keeps_no_class_from_being_served(scene: Scene) -> None:
    (scene.folder / "agent.classes.tmp").mkdir()
    scene.has("one")
    scene.begin()
    scene.classes.apply()
    assert scene.served == [["one"]]


def test_classes_that_the_agent_could_not_take_are_given_to_it_again(scene: Scene) -> None:
    scene.has("one")
    scene.begin()
    scene.is_busy = True
    with pytest.raises(StoreBusyError):
        scene.classes.apply()
    scene.is_busy = False
    assert scene.classes.apply()
    assert scene.served == [["one"]]


def test_at_work_it_follows_what_comes_and_goes(scene: Scene) -> None:
    scene.begin()
    scene.classes.start()
    scene.has("one")
    eventually(lambda: scene.served[-1:] == [["one"]])
    scene.api.remove(DEVICE_CLASSES, "one")
    eventually(lambda: scene.served[-1:] == [[]])
