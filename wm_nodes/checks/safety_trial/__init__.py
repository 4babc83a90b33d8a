"""`wm arm safety`: targets that would break limits, and an audit of the safety filter's output."""
