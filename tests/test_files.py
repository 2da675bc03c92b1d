"""Files that are either complete or not there."""

from pyrovae.files import written_whole


def test_two_writers_of_one_file_do_not_meet(tmp_path):
    """As in two containers, whose processes may have one number: the last one wins, whole."""
    path = tmp_path / "x.txt"
    with written_whole(path) as one:
        one.write_text("a long content")
        with written_whole(path) as other:
            other.write_text("short")
        assert path.read_text() == "short"
    assert path.read_text() == "a long content"
    assert [*tmp_path.iterdir()] == [path]
