"""Files are there whole or not at all."""

import pytest

from examples.sr_trilevel.writing import writing


def test_a_file_takes_its_place_when_it_is_whole(tmp_path):
    path = tmp_path / "below" / "file.txt"
    with writing(path) as aside:
        aside.write_text("new")
        assert not path.exists()

    assert path.read_text() == "new"
    assert list(path.parent.iterdir()) == [path]


def test_what_lies_there_stays_where_writing_fails(tmp_path):
    path = tmp_path / "file.txt"
    path.write_text("old")

    def fail():
        with writing(path) as aside:
            aside.write_text("half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()

    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
