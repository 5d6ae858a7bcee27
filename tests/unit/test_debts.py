"""Debts: noted before they are made, found by the next process, gone once they are paid."""

from __future__ import annotations

from pathlib import Path

from node_agent.debts import Debts


def test_a_debt_is_found_by_the_next_process_until_it_is_paid(tmp_path: Path) -> None:
    debts = Debts(tmp_path / "debts")
    assert list(debts.left("frozen")) == []
    paid = debts.owe("frozen", {"device": "7:1"})
    debts.owe("other", {})
    assert [debt.facts for debt in Debts(tmp_path / "debts").left("frozen")] == [{"device": "7:1"}]
    again = debts.owe("frozen", {"device": "7:2"})
    again()
    paid()
    assert list(debts.left("frozen")) == []
    assert [debt.kind for debt in debts.left("other")] == ["other"]


def test_a_note_stays_while_its_debt_cannot_be_paid(tmp_path: Path) -> None:
    debts = Debts(tmp_path)
    debts.owe("frozen", {"device": "7:1"})
    for debt in debts.left("frozen"):
        assert debt.facts
        break
    assert len(list(debts.left("frozen"))) == 1


def test_a_note_that_makes_no_sense_is_passed_over_and_stays(tmp_path: Path) -> None:
    (tmp_path / "frozen-x.json").write_text("{")
    assert list(Debts(tmp_path).left("frozen")) == []
    assert (tmp_path / "frozen-x.json").exists()
