"""`wm arm safety`: targets made to break limits, and an audit of the safety filter's output."""
