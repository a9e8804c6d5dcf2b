"""Games on a real local Ray: the same rows as one process gives, whatever happens to the workers."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from deadly import Broken, Deadly, DeadlyInTraining, DeadlyOnce, made
from tiny import GAMES, SMALL, measured

from bezoar.component import build
from bezoar.errors import SettingError, StoreWarning
from bezoar.games.game import Game
from bezoar.games.referee import Referee
from bezoar.rows import Results, Row
from bezoar.slices import Slice, TimeUpError
from bezoar.store import TENSORS, Store
from bezoar.sweep import attempt, resolve, sweep
from bezoar.workers import OBJECT_STORE, Crew


class Notes:
    """A watcher that writes down what it is told."""

    def __init__(self) -> None:
        self.said: list[tuple[str, Game]] = []

    def started(self, game: Game) -> None:
        self.said.append(("started", game))

    def finished(self, game: Game, row: Row) -> None:
        assert row["game"] == game.identity()
        self.said.append(("finished", game))


def test_two_workers_give_the_rows_of_one_process_and_failures_are_kept(
    alone: list[Row], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=os.pathsep)  # where workers find 'deadly'
    store = Store(tmp_path)
    damaged = Referee(store)
    damaged.splits(GAMES[0].data)
    (entry,) = store.folders()
    content = bytearray((entry / TENSORS).read_bytes())
    content[-1] ^= 1
    (entry / TENSORS).write_bytes(bytes(content))
    wrong = GAMES[0].replace(attack={"kind": "badnets", "poisons": 4000})
    odd = [Broken.model_validate({**SMALL, "seed": 90}), Deadly.model_validate({**SMALL, "seed": 91})]
    once = DeadlyOnce.model_validate({**SMALL, "seed": 5, "mark": str(tmp_path / "mark")})
    amid = DeadlyInTraining.model_validate({**SMALL, "seed": 6, "mark": str(tmp_path / "noted")})
    notes = Notes()
    with pytest.warns(StoreWarning, match="has changed on disk.*will be made again"):
        rows = sweep(
            [*GAMES, wrong, *odd, once, amid], damaged, Results(tmp_path / "rows.jsonl"), engine=Crew(2), watcher=notes
        )
    assert "raylet" not in "".join(capsys.readouterr()), "Ray's own words go to the log"
    assert measured(rows[:4]) == measured(alone)
    assert "attack.poisons: 4000 is more than" in rows[4]["error"]
    assert rows[5]["error"] == "KeyError: 'missing' (deadly.py, line 32)"
    assert rows[6]["error"].startswith("its worker died, and so did those that tried again")
    assert (tmp_path / "mark").exists()
    for row, seed in ((rows[7], 5), (rows[8], 6)):
        whole = attempt(build(Game, {**SMALL, "seed": seed}), Referee(Store(tmp_path / "other")))
        assert row["result"] == whole["result"], "a game whose worker was killed has another result"
    before, after = json.loads((tmp_path / "noted").read_text()), made(store, "6")
    assert sorted(stage for stage, _ in before.values()) == ["collect", "train"], "killed amid the second training"
    assert sorted(stage for stage, _ in after.values()) == ["collect", "repair", "train", "train"]
    assert {address: list(after[address]) for address in before} == before, "what was finished was made again"
    assert [row["provenance"]["threads"] for row in rows if "result" in row] == [1] * 6
    assert sorted(game.seed for said, game in notes.said if said == "finished") == [0, 0, 1, 2, 3, 5, 6, 90, 91]
    assert all(notes.said.index(("started", game)) < notes.said.index(("finished", game)) for game in GAMES)


def test_after_a_slice_no_worker_is_given_a_game_and_those_in_play_are_finished(
    alone: list[Row], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The time is up when the first game has been handed out, so that the second worker gets none."""
    referee, kept, limit = Referee(Store(tmp_path)), Results(tmp_path / "rows.jsonl"), Slice(1e-9)
    rows = sweep(GAMES, referee, kept, engine=Crew(2), limit=limit)
    assert measured(rows) == measured(alone)[:1]
    assert Results(kept.path).rows == {row["address"]: row for row in rows}
    monkeypatch.setattr("bezoar.workers._ray", lambda _: pytest.fail("Ray is started for nothing"))
    assert sweep(GAMES, referee, kept, engine=Crew(2), limit=limit) == rows


def test_searches_are_made_by_several_workers_and_come_to_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two repairs, each for two attacks; the driver tries nothing itself."""
    repairers = [{"kind": kind, "steps": 2, "batch_size": 16} for kind in ("weight_decay", "pivotal_tuning")]
    games = [
        build(Game, {**SMALL, "attack": {"kind": "badnets", "poisons": m}, "repairer": one})
        for m in (10, 20)
        for one in repairers
    ]
    here = resolve(games, True, Referee(Store(tmp_path / "here")))
    asked: list[int] = []
    search = Crew.search
    monkeypatch.setattr(Crew, "search", lambda crew, few, *rest: asked.append(len(few)) or search(crew, few, *rest))
    monkeypatch.setattr("bezoar.tuning._Judge._looks", lambda *_: pytest.fail("a trial was made twice"))
    there = resolve(games, True, Referee(Store(tmp_path / "there")), engine=Crew(2))
    assert there.searches == here.searches
    assert [game.identity() for game in there.games] == [game.identity() for game in here.games]
    assert asked == [2], "what differs in the attack alone is searched once"
    monkeypatch.setattr("bezoar.workers._ray", lambda _: pytest.fail("Ray is started for nothing"))
    assert resolve(games, True, Referee(Store(tmp_path / "there")), engine=Crew(2)).searches == here.searches
    over = Slice(1e-9)
    over.begin()
    with pytest.raises(TimeUpError):
        resolve(games, True, Referee(Store(tmp_path / "nowhere")), engine=Crew(2), limit=over)


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a cluster of two machines with a core each, as far as Ray can tell, which others have started."""
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    from ray.cluster_utils import Cluster  # noqa: PLC0415 - an extra

    core = {"num_cpus": 1, "object_store_memory": OBJECT_STORE}
    cluster = Cluster(initialize_head=True, head_node_args={**core, "include_dashboard": False})
    cluster.add_node(**core)
    yield str(cluster.address)
    cluster.shutdown()


def test_a_cluster_gives_the_rows_of_one_process_on_as_many_workers_as_it_has_room_for(
    cluster: str, alone: list[Row], tmp_path: Path
) -> None:
    """And is left as it was found, for the next sweep."""
    notes, kept = Notes(), Results(tmp_path / "rows.jsonl")
    for few in (GAMES[:2], GAMES):
        rows = sweep(few, Referee(Store(tmp_path)), kept, engine=Crew(address=cluster), watcher=notes)
        assert measured(rows) == measured(alone)[: len(few)]
    assert [said for said, _ in notes.said[:2]] == ["started", "started"], "two machines have room for two"
    assert len(notes.said) == 2 * len(GAMES), "a game was played twice"


def test_a_cluster_that_is_not_there_is_one_message(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match=r"workers: no Ray answers at '127\.0\.0\.1:1'"):
        sweep(GAMES, Referee(Store(tmp_path)), Results(tmp_path / "rows.jsonl"), engine=Crew(address="127.0.0.1:1"))
