"""What the safety filter needs of an arm's model: forward kinematics, and contacts."""

from __future__ import annotations

from typing import Protocol

from wm_nodes.robots.arm.safety.limits import Floats


class ForwardKinematics(Protocol):
    """Positions of the end effector and of all links, as `Kinematics` has them."""

    def positions(self, q: Floats) -> Floats: ...

    def links(self, q: Floats) -> Floats: ...

    def jacobian(self, q: Floats) -> tuple[Floats, Floats, Floats]: ...


class Contacts(Protocol):
    """Contacts of the arm with itself and its surroundings, as `CollisionChecker` finds them."""

    def contacts_at(self, q: Floats) -> tuple[str, ...]: ...

    def first_contact(self, q: Floats, allowed: frozenset[str] = frozenset()) -> str: ...
