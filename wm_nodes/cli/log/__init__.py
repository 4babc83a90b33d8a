"""`wm log ...`: content and integrity of a replay log, import and export of other formats."""

from __future__ import annotations

from collections.abc import Sequence

from wm_nodes.cli.helptext import group_help
from wm_nodes.cli.log import durability, transfer
from wm_nodes.cli.paths import find_log
from wm_nodes.errors import UserError, unknown

SUBCOMMANDS = {
    "info": "episodes, success, returns, fields and settings of a replay log (it may be in use)",
    "show": "an episode as a video with curves of actions and reward, or in the rerun viewer",
    "stats": "ranges of every dimension, rates, lengths, success by source and by weights",
    "verify": "read every block; report each fault with file and rows (exit code 1)",
    "torture": "kill writers of a new log, fail system calls or flip bytes; check what is lost",
    "sweep": "corrupt every kind of file of a log; then count the lost rows",
    "archive": "upload a log to an object store, also while it is recorded",
    "import": "bring recordings of another format into a log",
    "export": "write a log in another format",
}
LOOKS = ("show", "stats")
MOVES = {"import": transfer.run_import, "export": transfer.run_export}


def run(words: Sequence[str]) -> int:
    """Run `wm log WORDS`."""
    if words and words[0] in MOVES:
        return MOVES[words[0]](words[1:])
    if words and words[0] in LOOKS:
        from wm_nodes.cli.log import show

        return {"show": show.run_show, "stats": show.run_stats}[words[0]](words[1:])
    if words and words[0] == "verify":
        return durability.run_verify(words[1:], find_log)
    if words and words[0] == "torture":
        return durability.run_torture(words[1:])
    if words and words[0] == "sweep":
        return durability.run_sweep(words[1:])
    if words and words[0] == "archive":
        from wm_nodes.cli.log.archive import run_archive

        return run_archive(words[1:], find_log)
    if words and words[0] == "info":
        from wm_nodes.cli.log.info import run_info

        return run_info(words[1:])
    if words and words[0] not in ("-h", "--help"):
        raise UserError(unknown("subcommand", words[0], SUBCOMMANDS))
    print(group_help("log", SUBCOMMANDS))
    return 0 if words else 2
