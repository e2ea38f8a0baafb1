"""What was made is known again by what it was made from."""

from pathlib import Path

from instruction_modelling.files.stamps import content_of, differing, digest, is_made, mark_made, stamp_path


def test_an_output_is_made_while_its_stamp_and_every_output_stand(tmp_path: Path) -> None:
    source, output, second = tmp_path / "in", tmp_path / "out", tmp_path / "second"
    source.write_text("a")
    stamp = {"command": ["x", "--rows", 3], "input": content_of(source), "range": (1, 2)}
    assert not is_made([output, second], stamp)
    output.write_text("made")
    second.write_text("made")
    assert not is_made([output, second], stamp)
    mark_made(output, stamp)
    assert is_made([output, second], stamp)
    assert not is_made([output, second], {**stamp, "command": ["x", "--rows", 4]})
    source.write_text("b")
    assert not is_made([output, second], {**stamp, "input": content_of(source)})
    second.unlink()
    assert not is_made([output, second], stamp)
    second.write_text("made")
    stamp_path(output).write_text("{half")
    assert not is_made([output, second], stamp)


def test_what_differs_is_named_and_absent_is_not_none() -> None:
    assert differing({"a": 1, "b": (1, 2), "c": None}, {"a": 2, "b": [1, 2], "d": 1}) == ["a", "c", "d"]


def test_a_digest_follows_the_value_and_not_the_order_of_its_keys() -> None:
    assert digest({"a": 1, "b": [2]}) == digest({"b": [2], "a": 1}) != digest({"a": 1, "b": [3]})


def test_an_absent_file_is_a_fact_of_its_own(tmp_path: Path) -> None:
    assert content_of(tmp_path / "none") == "missing"
