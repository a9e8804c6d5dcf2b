"""Content-addressed stages."""

import errno
import json
import multiprocessing
import os
import signal
import threading
import time
from pathlib import Path

import pytest
import torch
from filelock import FileLock
from safetensors import SafetensorError

from bezoar import store as module
from bezoar.errors import StoreError, StoreWarning
from bezoar.store import STALE_SECONDS, Artefact, Stage, Store

STAGE = Stage("train", {"lr": 0.1, "trainer": {"kind": "sgd@1"}}, "0/train", {"data": "abc"})


def artefact(value: float = 1.0) -> Artefact:
    return Artefact({"weights": torch.full((2, 3), value)}, {"epochs": 3})


def everything_in(store: Store) -> list[Path]:
    """All files but the marker of the format, and the empty claims of processes that were killed."""
    files = (path for path in store.root.rglob("*") if path.is_file() and path.parent.name != "claims")
    return sorted(path for path in files if path.name != "format.json")


def refuse(*_: object, **__: object) -> None:
    """In the place of taking a lock."""
    raise OSError(errno.ENOLCK, "No locks available")


def in_another_process(work) -> multiprocessing.Process:
    """Run something in a fork of this process."""
    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    return process


def test_an_address_depends_on_the_recipe_and_on_nothing_else():
    again = Stage("train", {"trainer": {"kind": "sgd@1"}, "lr": 0.1}, "0/train", {"data": "abc"})
    assert again.address == STAGE.address
    others = [
        Stage("repair", STAGE.settings, STAGE.seed, STAGE.inputs),
        Stage("train", {**STAGE.settings, "lr": 0.2}, STAGE.seed, STAGE.inputs),
        Stage("train", {**STAGE.settings, "trainer": {"kind": "sgd@2"}}, STAGE.seed, STAGE.inputs),
        Stage("train", STAGE.settings, "1/train", STAGE.inputs),
        Stage("train", STAGE.settings, STAGE.seed, {"data": "abd"}),
    ]
    assert len({STAGE.address, *(other.address for other in others)}) == 6


def test_what_was_made_once_is_read_bit_by_bit_by_another_store(tmp_path: Path):
    tensors = {"half": torch.rand(3).bfloat16(), "bytes": torch.arange(5).byte(), "strided": torch.rand(4, 6)[:, ::2]}
    made = Store(tmp_path).make(STAGE, lambda: Artefact(tensors, {"curve": [1, {"a": None}], "boost": 2}))
    found = Store(tmp_path).make(STAGE, lambda: pytest.fail("it was computed again"))
    assert found.facts == made.facts == {"curve": [1, {"a": None}], "boost": 2}
    assert found.tensors.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert torch.equal(found.tensors[name], tensor)
        assert found.tensors[name].dtype == tensor.dtype


def test_facts_without_tensors_can_be_kept(tmp_path: Path):
    Store(tmp_path).make(STAGE, lambda: Artefact(facts={"n": 1}))
    assert Store(tmp_path).find(STAGE) == Artefact({}, {"n": 1})


def test_tensors_in_the_same_memory_can_be_kept(tmp_path: Path):
    tied = torch.rand(3, 4)
    Store(tmp_path).make(STAGE, lambda: Artefact({"embedding": tied, "head": tied, "row": tied[1]}))
    found = Store(tmp_path).find(STAGE)
    assert found is not None
    assert torch.equal(found.tensors["embedding"], found.tensors["head"])
    assert torch.equal(found.tensors["row"], tied[1])


def test_the_time_a_stage_took_is_known(tmp_path: Path):
    store = Store(tmp_path)
    assert store.seconds(STAGE) == 0
    store.make(STAGE, lambda: (threading.Event().wait(0.02), artefact())[1])
    assert store.seconds(STAGE) >= 0.02


def test_a_failed_computation_leaves_nothing(tmp_path: Path):
    store = Store(tmp_path)
    with pytest.raises(ZeroDivisionError):
        store.make(STAGE, lambda: Artefact(facts={"n": 1 // 0}))
    assert store.find(STAGE) is None
    assert everything_in(store) == []


def test_a_full_disk_leaves_nothing_and_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    store = Store(tmp_path)

    def full(tensors, path: Path) -> None:
        path.write_bytes(b"half of it")
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(module, "save_file", full)
        with pytest.raises(StoreError, match=r"cannot write the stage 'train'.*No space left.*BEZOAR_HOME"):
            store.make(STAGE, artefact)
    assert everything_in(store) == []
    assert store.make(STAGE, artefact).facts == {"epochs": 3}


def test_kill_9_in_the_middle_of_writing_leaves_only_scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def die(tensors, path: Path) -> None:
        path.write_bytes(b"half of it")
        os.kill(os.getpid(), signal.SIGKILL)

    with monkeypatch.context() as patch:
        patch.setattr(module, "save_file", die)
        process = in_another_process(lambda: Store(tmp_path).make(STAGE, artefact))
        process.join()
    assert process.exitcode == -signal.SIGKILL
    store = Store(tmp_path)
    assert [path.relative_to(store.root).parts[0] for path in everything_in(store)] == ["scratch"]
    assert store.find(STAGE) is None
    assert torch.equal(store.make(STAGE, artefact).tensors["weights"], artefact().tensors["weights"])


def test_what_killed_runs_left_is_swept_once_it_is_old(tmp_path: Path):
    scratch = Store(tmp_path).root / "scratch"
    claims = Store(tmp_path).root / "claims"
    for name, age in (("old", STALE_SECONDS + 60), ("young", 60)):
        (scratch / name).mkdir()
        (claims / name).touch()
        for left in (scratch / name, claims / name):
            then = left.stat().st_mtime - age
            os.utime(left, (then, then))
    Store(tmp_path)
    for folder in (scratch, claims):
        assert [entry.name for entry in folder.iterdir()] == ["young"]


@pytest.mark.parametrize("content", ['{"format": 99}', '{"version": 1}', "[]", "not JSON"])
def test_a_store_of_another_format_is_refused(tmp_path: Path, content: str):
    root = Store(tmp_path).root
    (root / "format.json").write_text(content)
    with pytest.raises(StoreError, match=r"has format .*; set BEZOAR_HOME to a new folder, or remove the old store"):
        Store(tmp_path)
    assert (root / "format.json").read_text() == content


def test_a_store_that_cannot_be_a_folder_is_named(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"cannot be used \(.*\); set BEZOAR_HOME"):
        Store(tmp_path / "file")


@pytest.mark.parametrize("damage", ["facts.json", "tensors.safetensors"])
@pytest.mark.parametrize("how", [lambda path: path.unlink(), lambda path: path.write_bytes(path.read_bytes()[:20])])
def test_an_unreadable_entry_is_set_aside_and_made_again(tmp_path: Path, damage: str, how):
    store = Store(tmp_path)
    store.make(STAGE, artefact)
    how(next(store.root.rglob(damage)))
    with pytest.warns(StoreWarning, match="will be made again"):
        assert store.find(STAGE) is None
    assert [entry.name.partition("-")[0] for entry in (store.root / "damaged").iterdir()] == [STAGE.address]
    assert store.make(STAGE, lambda: artefact(2.0)).tensors["weights"][0, 0] == 2
    assert store.find(STAGE) is not None


@pytest.mark.parametrize("damage", ["facts.json", "tensors.safetensors"])
def test_a_changed_bit_is_found_set_aside_with_a_warning_and_made_again(tmp_path: Path, damage: str):
    """A tensor with a flipped bit, and a fact with another digit, can be read all the same."""
    store = Store(tmp_path)
    store.make(STAGE, artefact)
    path = next(store.root.rglob(damage))
    if damage == "facts.json":
        path.write_text(path.read_text().replace('"epochs":3', '"epochs":8'))
    else:
        content = bytearray(path.read_bytes())
        content[-1] ^= 1
        path.write_bytes(content)
    with pytest.warns(StoreWarning, match=r"'train' entry .* has changed on disk; it was moved to .*damaged"):
        assert store.find(STAGE) is None
    assert store.make(STAGE, artefact).facts == {"epochs": 3}


def test_an_entry_of_another_stage_is_not_taken_for_this_one(tmp_path: Path):
    store, other = Store(tmp_path), Stage("train", {"lr": 0.5})
    store.make(other, artefact)
    home = store.root / STAGE.address[:2] / STAGE.address
    home.parent.mkdir(exist_ok=True)
    (store.root / other.address[:2] / other.address).rename(home)
    with pytest.warns(StoreWarning, match="holds another stage than its address says"):
        assert store.find(STAGE) is None


def test_an_entry_without_a_checksum_was_written_by_an_older_bezoar_and_is_read(tmp_path: Path):
    store = Store(tmp_path)
    store.make(STAGE, artefact)
    path = next(store.root.rglob("facts.json"))
    record = json.loads(path.read_text())
    assert len(record.pop("checksum")) == 32
    path.write_text(json.dumps(record))
    assert store.make(STAGE, lambda: pytest.fail("it was computed again")).facts == {"epochs": 3}


@pytest.mark.parametrize(
    "taken_for", [ValueError("no shape"), SafetensorError("damaged")], ids=["torch", "safetensors"]
)
def test_an_interruption_while_tensors_are_read_is_neither_lost_nor_taken_for_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, taken_for: Exception
):
    store = Store(tmp_path)
    store.make(STAGE, artefact)

    def load_file(path: Path) -> dict[str, torch.Tensor]:
        """As compiled code does that takes for its own error whatever Python raises."""
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            raise taken_for from None
        return {}

    monkeypatch.setattr(module, "load_file", load_file)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where a shell's & started the tests
    try:
        with pytest.raises(KeyboardInterrupt):
            store.make(STAGE, artefact)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
    assert not (store.root / "damaged").exists()
    monkeypatch.undo()
    assert store.make(STAGE, lambda: pytest.fail("it was made again")).tensors["weights"].tolist() == [[1.0] * 3] * 2


def test_of_many_processes_one_makes_a_stage_and_the_others_wait(tmp_path: Path):
    Store(tmp_path)
    start = multiprocessing.get_context("fork").Barrier(4)

    def slow() -> Artefact:
        (tmp_path / f"made-by-{os.getpid()}").touch()
        time.sleep(0.5)
        return artefact()

    def work() -> None:
        start.wait()
        assert Store(tmp_path).make(STAGE, slow).facts == {"epochs": 3}

    processes = [in_another_process(work) for _ in range(4)]
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 4
    assert len(list(tmp_path.glob("made-by-*"))) == 1
    assert not list((tmp_path / "store" / "claims").iterdir())


def test_the_claim_of_a_process_that_is_killed_goes_with_it(tmp_path: Path):
    Store(tmp_path)

    def forever() -> Artefact:
        (tmp_path / "claimed").touch()
        time.sleep(600)
        return artefact()

    process = in_another_process(lambda: Store(tmp_path).make(STAGE, forever))
    while not (tmp_path / "claimed").exists():
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)  # type: ignore[arg-type]
    process.join()
    assert Store(tmp_path).make(STAGE, artefact).facts == {"epochs": 3}


def test_where_nothing_can_be_locked_a_stage_is_made_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(FileLock, "acquire", refuse)
    assert Store(tmp_path).make(STAGE, artefact).facts == {"epochs": 3}


def test_another_process_that_is_faster_does_no_harm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Where locks do not work, so that both make the stage."""
    monkeypatch.setattr(FileLock, "acquire", refuse)
    store = Store(tmp_path)

    def slow() -> Artefact:
        Store(tmp_path).make(STAGE, artefact)
        return artefact()

    assert store.make(STAGE, slow).facts == {"epochs": 3}
    assert len(everything_in(store)) == 2
    assert store.find(STAGE) is not None


def test_many_writers_at_once_leave_one_whole_entry(tmp_path: Path):
    Store(tmp_path)
    start = multiprocessing.get_context("fork").Barrier(4)

    def work() -> None:
        store = Store(tmp_path)
        start.wait()
        store.make(STAGE, artefact)

    processes = [in_another_process(work) for _ in range(4)]
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 4
    store = Store(tmp_path)
    assert [path.name for path in everything_in(store)] == ["facts.json", "tensors.safetensors"]
    assert json.loads(everything_in(store)[0].read_text())["inputs"] == {"data": "abc"}


def test_only_folders_under_their_own_address_are_entries(tmp_path: Path):
    store = Store(tmp_path)
    store.make(STAGE, artefact)
    home = store.root / STAGE.address[:2] / STAGE.address
    (home.parent / ".DS_Store").write_text("")
    (home.parent / "notes").mkdir()
    (store.root / ("00" if home.parent.name != "00" else "01")).write_text("")
    assert store.folders() == [home]


def test_the_store_lies_where_the_user_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("BEZOAR_HOME", str(tmp_path / "home"))
    assert Store().root == tmp_path / "home" / "store"
    monkeypatch.delenv("BEZOAR_HOME")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert Store().root == tmp_path / "cache" / "bezoar" / "store"
