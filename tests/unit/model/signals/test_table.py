"""The signal table: columns, labels, groups and meanings follow from one declaration of each signal."""

from model.signals.table import COLUMN, DENSE, DENSE_SIGNALS, KINDS, SIGNALS, Candidate, Matched, signal_infos


def test_columns_are_the_kinds_one_after_the_other() -> None:
    assert len(set(SIGNALS)) == len(SIGNALS) == sum(len(kind) for kind in KINDS)
    assert COLUMN["text last"] == DENSE + Candidate.TEXT_LAST == len(DENSE_SIGNALS)
    assert COLUMN["backbone"] == DENSE - len(Matched) + Matched.BACKBONE
    assert [one.value for kind in KINDS for one in kind] == [n for kind in KINDS for n in range(len(kind))]


def test_each_signal_is_described() -> None:
    infos = signal_infos()
    assert [info.name for info in infos] == list(SIGNALS)
    assert all(info.group and info.meaning for info in infos)
    assert {info.stage for info in infos[:DENSE]} == {"considered"}
    assert {info.stage for info in infos[DENSE:]} == {"shortlist"}
