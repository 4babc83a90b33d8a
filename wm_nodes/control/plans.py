"""Plans: built from actions, checked against a robot, read at a time."""

from __future__ import annotations

from wm_datasets.spec import LogSpec, VectorSpec
from wm_nodes.errors import MessageError
from wm_nodes.records import Origin, Plan, Step, Vector


class PlanMaker:
    """Turns actions into plans, with the robot's own names, action space and period."""

    def __init__(self) -> None:
        self._period_s, self.knows_robot = 0.0, False  # has it learned a spec?
        self._spaces: dict[tuple[str, ...], VectorSpec] = {}

    def learn(self, spec: LogSpec) -> None:
        """Store action space and period of a robot's spec."""
        self._period_s, self.knows_robot = spec.control_period_s, True
        if spec.action is not None:
            self._spaces[spec.action.names] = spec.action

    def known_space(self, step: Step) -> VectorSpec | None:
        """Return the robot's action space; None before its spec."""
        return self._spaces.get(step.names)

    def space(self, step: Step) -> VectorSpec:
        """Return the robot's action space; -1 to 1 before its spec."""
        size = len(step.names)
        unit = VectorSpec(step.names, ("1",) * size, (-1.0,) * size, (1.0,) * size)
        return self.known_space(step) or unit

    def plan(self, step: Step, origin: Origin, actions: Vector) -> Plan:
        """Return the plan for the step's observation; actions (N, A)."""
        return Plan(step.stamp_ns, origin, step.names, actions, self._period_s)


def check_plan(plan: Plan, action: VectorSpec) -> Plan:
    """Return the plan with its dimensions in the robot's order, or raise MessageError."""
    if plan.names == action.names:
        return plan
    if set(plan.names) != set(action.names) or len(plan.names) != len(action.names):
        raise MessageError(
            "dimensions",
            f"plan: got dimensions {list(plan.names)}, expected {list(action.names)}",
        )
    order = [plan.names.index(name) for name in action.names]
    return Plan(plan.stamp_ns, plan.origin, action.names, plan.actions[:, order], plan.period_s)


def due_action(plan: Plan, age_s: float, period_s: float) -> tuple[Vector, float]:
    """Return the action that is due `age_s` after the plan's observation, and by how many seconds
    the plan's end has passed.

    Point i is due from i periods on; after the last one's period the plan is overdue.
    """
    each = plan.period_s or period_s
    index = min(max(int(age_s / each), 0), len(plan.actions) - 1)
    return plan.actions[index], age_s - len(plan.actions) * each
