"""Section `driver:` of a robot's YAML: the driver's speed scaling, recovery and controllers."""

from __future__ import annotations

import dataclasses
import re
from typing import Annotated, Any

from pydantic import AfterValidator, ConfigDict, model_validator
from pydantic.dataclasses import dataclass

from wm_nodes.robots.arm.config.field_types import (
    Between,
    Flag,
    Matches,
    MaybeTopic,
    Number,
    Topic,
    Word,
    wrong,
)

STRICT = ConfigDict(extra="forbid", allow_inf_nan=False)
SERVICE_TYPE = re.compile(r"[a-z][a-z0-9_]*/srv/[A-Z][A-Za-z0-9]*\Z")
ANSWER_S, LONGEST_S = 3.0, 30.0  # for a service to answer
SILENT_S = 0.5
MOST_CALLS = 10


def _few(calls: tuple[Any, ...]) -> tuple[Any, ...]:
    if len(calls) > MOST_CALLS:
        raise wrong(f"at most {MOST_CALLS} calls", "Remove some.", got=f"{len(calls)} calls")
    return calls


ServiceType = Annotated[
    Word, AfterValidator(Matches(SERVICE_TYPE, "a service type such as std_srvs/srv/Trigger"))
]
Answer = Annotated[Number, AfterValidator(Between(0.1, LONGEST_S, "s"))]
Silence = Annotated[Number, AfterValidator(Between(0.05, 10.0, "s"))]


@dataclass(frozen=True, config=STRICT)
class ServiceCall:
    """A call of a driver's service. `request`: fields by name; others keep their defaults.

    `timeout_s`: longest wait for its answer [s].
    """

    service: Topic
    type: ServiceType
    request: dict[str, Any] = dataclasses.field(default_factory=dict)
    timeout_s: Answer = ANSWER_S


@dataclass(frozen=True, config=STRICT)
class DriverSection:
    """What the driver offers beside joint states and commands.

    `speed_scaling_topic` (std_msgs/Float64): how fast it moves now, in percent or as a share of 1.
    No value counts longer than `speed_scaling_timeout_s`. `recover`: calls in order that end a
    protective stop. `activate`, `deactivate`: calls that switch the controller.
    """

    speed_scaling_topic: MaybeTopic = ""
    speed_scaling_percent: Flag = True
    speed_scaling_timeout_s: Silence = SILENT_S
    recover: Annotated[tuple[ServiceCall, ...], AfterValidator(_few)] = ()
    activate: ServiceCall | None = None
    deactivate: ServiceCall | None = None

    @model_validator(mode="after")
    def _speed_has_a_topic(self) -> DriverSection:
        for name in ("speed_scaling_percent", "speed_scaling_timeout_s"):
            if not self.speed_scaling_topic and getattr(self, name) != getattr(DriverSection, name):
                raise wrong("speed_scaling_topic with it", "Add the topic, or remove this.",
                            got="no speed_scaling_topic", key=name)  # fmt: skip
        return self
