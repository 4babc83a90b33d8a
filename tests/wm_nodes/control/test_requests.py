"""Requests are executed once, in their order, unless their caller has cancelled them."""

from __future__ import annotations

from wm_nodes.control.requests import Requests
from wm_nodes.records import Answer


def test_all_waiting_requests_are_executed_in_their_order_and_once() -> None:
    requests, executed = Requests(), list[tuple[str, object]]()

    def execute(name: str, value: object) -> Answer:
        executed.append((name, value))
        return Answer(True, name)

    futures = [requests.put("pause"), requests.put("speed_scale", 0.5), requests.put("resume")]
    assert not any(future.done() for future in futures)
    requests.serve(execute)
    requests.serve(execute)
    assert executed == [("pause", None), ("speed_scale", 0.5), ("resume", None)]
    assert [future.result(0).text for future in futures] == ["pause", "speed_scale", "resume"]


def test_a_cancelled_request_is_not_executed() -> None:
    requests, executed = Requests(), list[str]()
    requests.put("clear").cancel()
    waiting = requests.put("pause")
    requests.serve(lambda name, value: executed.append(name) or Answer(True, ""))
    assert executed == ["pause"] and waiting.done()
