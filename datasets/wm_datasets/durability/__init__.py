"""Tools that break logs on purpose and count what is lost."""
