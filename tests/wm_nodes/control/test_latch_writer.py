"""Latches are on the disk: at the start, after each change, at the end, and after a full disk."""

from __future__ import annotations

import time
from collections.abc import Callable

from tests.wm_nodes.control.test_lockstep import Output
from wm_nodes.control import latch_writer
from wm_nodes.control.latch_writer import LatchWriter
from wm_nodes.control.safety_record import Record, SafetyRecord


class Bench:
    def __init__(self, folder) -> None:
        self.record, self.output = SafetyRecord(folder / "arm.json"), Output()
        self.latches: dict[str, str] = {}
        self.writer = LatchWriter(self.record, lambda: dict(self.latches), self.output)
        self.blocked = folder / ".arm.json.part"  # a folder: nothing can be written there

    @property
    def stored(self) -> Record:
        return SafetyRecord(self.record.path).load()


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 60.0
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.001)


def test_the_record_states_whether_the_robot_may_move(tmp_path) -> None:
    bench = Bench(tmp_path)
    for running in (True, False):
        assert bench.writer.store(running=running) == ""
        assert bench.stored == Record({}, running)


def test_a_failed_write_is_a_fault_until_the_record_is_written(tmp_path) -> None:
    bench = Bench(tmp_path)
    bench.blocked.mkdir()
    refused = bench.writer.store(running=True)
    assert "latches cannot be stored" in refused and refused in bench.output.faults["record"]
    bench.blocked.rmdir()
    assert bench.writer.store(running=True) == "" and not bench.output.faults


def test_each_change_is_stored_until_the_end(tmp_path) -> None:
    bench = Bench(tmp_path)
    bench.writer.start()
    assert bench.stored == Record({}, running=True)
    for latches in ({"estop": "x"}, {"estop": "x", "tracking": "y"}, {}):
        bench.latches = latches
        bench.writer.notify()
        until(lambda: bench.stored == Record(bench.latches, running=True))
    bench.writer.stop(running=False)
    assert bench.stored == Record({}, running=False)
    assert bench.writer._thread is not None and not bench.writer._thread.is_alive()


def test_it_can_be_started_again(tmp_path) -> None:
    bench = Bench(tmp_path)
    for latches in ({"estop": "x"}, {"tracking": "y"}):
        bench.writer.start()
        bench.latches = latches
        bench.writer.notify()
        until(lambda: bench.stored == Record(bench.latches, running=True))
        bench.writer.stop(running=True)
        assert bench.stored == Record(latches, running=True)


def test_after_a_failed_write_it_tries_again_by_itself(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(latch_writer, "RETRY_S", 0.001)
    bench = Bench(tmp_path)
    bench.writer.start()
    bench.blocked.mkdir()
    bench.latches = {"estop": "x"}
    bench.writer.notify()
    until(lambda: "record" in bench.output.faults)
    bench.blocked.rmdir()
    until(lambda: bench.stored.latched == {"estop": "x"})
    until(lambda: not bench.output.faults)
    bench.writer.stop(running=False)
