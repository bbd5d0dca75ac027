"""The journal: torn lines, last line wins, order, rewriting."""

from pipeline.core.state import Journal, Record, read_records


def record(name: str, status: str = "ok", key: str = "k") -> Record:
    return Record(name, key, "step", status, outputs={f"{name}.x": {"bytes": 1, "sha256": "0"}})


def test_torn_last_line_is_cut_off_and_the_rest_is_kept(tmp_path):
    path = tmp_path / "items.jsonl"
    journal = Journal(path).open()
    journal.append([record("a"), record("b")])
    journal.close()
    whole = path.read_bytes()
    for cut in range(len(whole) // 2, len(whole)):
        path.write_bytes(whole[:cut])
        again = Journal(path).open()
        again.append([record("c")])
        again.close()

        assert [r.id for r in read_records(path)] in (["a", "c"], ["a", "b", "c"])
    assert all(line.startswith(b'{"id"') for line in path.read_bytes().splitlines())


def test_last_line_of_an_id_wins(tmp_path):
    journal = Journal(tmp_path / "j").open()
    journal.append([record("a"), record("b"), record("a", "failed")])
    journal.close()

    loaded = Journal(tmp_path / "j").load()

    assert loaded.records["a"].status == "failed"
    assert list(loaded.records) == ["b", "a"]


def test_records_survive_the_round_trip(tmp_path):
    before = Record(
        "ж\udcff/x",
        "k",
        "s",
        "damaged",
        "truncated",
        "end missing",
        "raw/x",
        2,
        1.5,
        {"f": {"bytes": 3}},
        {"n": 1},
    )

    assert Record.from_json(before.to_json()) == before


def test_rewriting_replaces_everything(tmp_path):
    journal = Journal(tmp_path / "j").open()
    journal.append([record("a"), record("b")])
    journal.rewrite([record("b")])
    journal.append([record("c")])
    journal.close()

    assert [r.id for r in read_records(tmp_path / "j")] == ["b", "c"]
