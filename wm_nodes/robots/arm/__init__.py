"""An arm behind standard topics: limits, safety filter, kinematics, adapter, and its simulator."""
