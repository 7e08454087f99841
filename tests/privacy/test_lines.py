"""Names are struck out where they stand, and nothing else."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from easyphoto.privacy.lines import Eraser, scrub, strike_out
from easyphoto.store.paths import person_id


def test_a_name_becomes_stars_in_every_spelling_and_letter_case() -> None:
    eraser = Eraser.of(["Zoë"])
    for text in ("Zoë", "ZOË", json.dumps("Zoë"), "Zoe\u0308", person_id("Zoë"), f"people/{person_id('Zoë')}/person.json"):
        struck = eraser.struck(f"before {text} behind")
        assert "*" in struck
        assert not eraser.names(struck)
        assert struck.startswith("before ")
        assert struck.endswith(" behind")


def test_other_words_and_other_people_stay_whole() -> None:
    eraser = Eraser.of(["Anna"], spared=["Anna B", "Annabel"])
    text = "Anna B and Annabel and Hanna, not Anna; anna-maria"
    assert eraser.struck(text) == "Anna B and Annabel and Hanna, not ****; ****-maria"


def test_a_name_in_a_script_without_spaces_is_found_inside_a_line() -> None:
    assert Eraser.of(["王小明"]).struck("我是王小明的朋友") == "我是*********的朋友"


def test_a_process_that_writes_to_the_log_goes_on_undisturbed(tmp_path: Path) -> None:
    log = tmp_path / "worker.log"
    with log.open("ab") as writer:
        writer.write("first Zoë\n".encode())
        writer.flush()
        assert strike_out(log, Eraser.of(["Zoë"])) == 1
        writer.write(b"second\n")
    assert log.read_bytes() == b"first ****\nsecond\n"


@given(lines=st.lists(st.binary(max_size=30) | st.sampled_from([b"Bea", b" Bea ", b"Bea's", b"Beate"]), max_size=8))
def test_every_other_byte_of_a_file_stays(lines: list[bytes], tmp_path_factory) -> None:
    path = tmp_path_factory.mktemp("lines") / "log.txt"
    before = b"\n".join(lines)
    path.write_bytes(before)
    strike_out(path, Eraser.of(["Bea"]))
    after = path.read_bytes()
    assert len(after) == len(before)
    assert all(old == new or new == ord("*") for old, new in zip(before, after, strict=True))
    assert b" Bea " not in after


def test_a_database_that_others_read_keeps_nothing_of_removed_rows(tmp_path: Path) -> None:
    path = tmp_path / "jobs.sqlite"
    with closing(sqlite3.connect(path, isolation_level=None)) as one, closing(sqlite3.connect(path)) as other:
        one.execute("PRAGMA journal_mode=WAL")
        one.execute("CREATE TABLE jobs (id TEXT, person TEXT)")
        one.executemany("INSERT INTO jobs VALUES (?, ?)", [(str(place), f"Zoe Quandt {place}") for place in range(300)])
        assert other.execute("SELECT count(*) FROM jobs").fetchone() == (300,)
        one.execute("DELETE FROM jobs WHERE id < '5'")
        scrub(path)
        left = one.execute("SELECT person FROM jobs").fetchall()
    data = b"".join(file.read_bytes() for file in tmp_path.iterdir())
    assert data.count(b"Zoe Quandt") == len(left) < 300
