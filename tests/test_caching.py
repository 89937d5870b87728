"""The cache: keyed by all that decides a number, mended where it is damaged, done without where it cannot be
written.
"""

import json
import logging
import threading
from pathlib import Path

import pytest
from filelock import FileLock

from spectangle import caching
from spectangle.caching import Wanted, cache_key, cached, cached_each, settings
from spectangle.evaluation.regressors import sklearn_regressor


def count(calls: list[int]):
    def make() -> dict[str, float]:
        calls.append(1)
        return {"a": 1.0}

    return make


def test_numbers_are_made_once(tmp_path: Path):
    calls: list[int] = []
    assert [cached(tmp_path / "a.json", count(calls)) for _ in range(3)] == [{"a": 1.0}] * 3 and len(calls) == 1


def test_a_part_that_another_process_makes_is_left_to_it(tmp_path: Path):
    """Who comes second makes what the first has not begun, and then waits."""
    first, second = tmp_path / "a.json", tmp_path / "b.json"
    own, made = threading.Event(), []

    def make_second() -> dict[str, float]:
        made.append("b")
        own.set()
        return {"b": 2.0}

    with FileLock(f"{first}.lock"):
        wanted = [Wanted(first, lambda: made.append("a") or {"a": 0.0}), Wanted(second, make_second)]
        found: list[dict[str, float]] = []
        waiting = threading.Thread(target=lambda: found.extend(cached_each(wanted)))
        waiting.start()
        assert own.wait(10) and not found
        first.write_text('{"a": 1.0}')
    waiting.join(10)
    assert found == [{"a": 1.0}, {"b": 2.0}] and made == ["b"]


@pytest.mark.parametrize("damage", ["", '{"a": 1', "[1]", "\x00\x00"])
def test_a_damaged_file_is_made_again(tmp_path: Path, damage: str):
    (tmp_path / "a.json").write_text(damage)
    calls: list[int] = []
    assert (
        cached(tmp_path / "a.json", count(calls)) == {"a": 1.0} == json.loads((tmp_path / "a.json").read_text())
        and len(calls) == 1
    )


def test_a_file_without_its_companion_is_made_again(tmp_path: Path):
    calls: list[int] = []
    for expected in (1, 2, 2):
        cached(tmp_path / "a.json", count(calls), beside=tmp_path / "a.skops")
        assert len(calls) == expected
        (tmp_path / "a.skops").write_bytes(b"x" if expected == 2 else b"")


def test_a_cache_that_cannot_be_written_costs_a_word(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    (tmp_path / "file").write_text("no folder")
    with caplog.at_level(logging.WARNING):
        assert cached(tmp_path / "file" / "baselines" / "a.json", count([])) == {"a": 1.0}
    assert "could not be written" in caplog.text


def test_another_version_has_another_key(monkeypatch: pytest.MonkeyPatch):
    before = cache_key("facts")
    monkeypatch.setattr(caching.metadata, "version", lambda name: "0.0.1")
    assert cache_key("facts") != before
    after = cache_key("facts")
    monkeypatch.setattr(caching, "VERSION", "9")
    assert cache_key("facts") != after


def test_every_setting_counts_however_long_the_list():
    hidden = list(range(1, 400))
    one, two = settings(sklearn_regressor(hidden)), settings(sklearn_regressor([*hidden[:-1], 7]))
    assert one != two and json.dumps(one, sort_keys=True) == json.dumps(
        settings(sklearn_regressor(hidden)), sort_keys=True
    )
