"""A stub of `wm` in a study: it writes the files of a graph and an evaluation, and its calls.

    recorded_wm.py FOLDER launch sim_metaworld name:=value ...
    recorded_wm.py FOLDER eval --policy NAME ... --csv FILE

FOLDER/calls.txt gets a line for each call; FOLDER/fail names tasks and policies that fail.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path

HEAD = "task,policy,seed,episode,episode_seed,length,total_reward,success,first_success\n"


def main(folder: Path, arguments: list[str]) -> int:
    with (folder / "calls.txt").open("a") as calls:
        calls.write(" ".join(arguments) + "\n")
    fail = (folder / "fail").read_text().split() if (folder / "fail").exists() else []
    return launch(arguments, fail) if arguments[0] == "launch" else evaluate(arguments, fail)


def launch(arguments: list[str], fail: list[str]) -> int:
    values = dict(argument.split(":=") for argument in arguments[2:])
    run = Path(values["run"])
    if values["task"] in fail:
        return 3
    version = run / "weights" / f"{4:010d}"
    (run / "metrics").mkdir(parents=True, exist_ok=True)
    version.mkdir(parents=True, exist_ok=True)
    (run / "weights" / "latest").write_text("4\n")
    (version / "manifest.json").write_text(json.dumps({"version": 4, "preset": "x", "step": 321}))
    (run / "progress.json").write_text(json.dumps({"steps": 5000, "decisions": 2500}))
    table = "time,steps,success\n0,1000,0.1\n1,2000,0.5\n2,3000,0.75\n3,4000,1.0\n"
    (run / "metrics" / "evaluations.csv").write_text(table)
    (run / "pid").write_text(str(os.getpid()))
    if values["steps"] != "0":
        return 0
    signal.signal(signal.SIGINT, lambda number, frame: sys.exit(0))
    time.sleep(100)
    return 1


def evaluate(arguments: list[str], fail: list[str]) -> int:
    policy = arguments[arguments.index("--policy") + 1] if "--policy" in arguments else "agent"
    if policy in fail:
        return 2
    count = int(arguments[arguments.index("--episodes") + 1])
    wins = {"agent": count - 1, "open_loop_best": count // 2, "expert": count}.get(policy, 0)
    rows = (f"t,{policy},0,{i},{i},100,{10 * i},{int(i < wins)},-1\n" for i in range(count))
    Path(arguments[arguments.index("--csv") + 1]).write_text(HEAD + "".join(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
