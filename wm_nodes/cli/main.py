"""Entry point of `wm`."""


def main() -> int:
    """Run the subcommand named on the command line; return its exit code."""
    print("wm: not wired yet")
    return 0
