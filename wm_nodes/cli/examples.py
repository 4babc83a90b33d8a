"""Examples in the help of every command: command -> lines as they are typed."""

from __future__ import annotations

from collections.abc import Mapping

EXAMPLES: Mapping[str, tuple[str, ...]] = {
    "": (
        "wm demo",
        "wm launch sim_metaworld task:=window-close-v3",
        "wm eval --weights window-close --episodes 20",
        "wm log info runs/NAME",
    ),
    "launch": (
        "wm launch sim_metaworld task:=window-close-v3 demos:=20",
        "wm launch sim robot:=wall task:=wall-door",
        "wm launch sim_metaworld run:=window-close-v3-20260101-120000",
        "wm launch arm_mpc weights:=arm-goal horizon:=3 samples:=64",
        "wm launch arm_mpc --show-args",
    ),
    "demo": ("wm demo", "wm demo --weights reach --episodes 3 --composition fused"),
    "train": (
        "wm train --log runs/NAME --model mwm_cpu --steps 20000",
        "wm train --log demos --log play:0.3 --eval-every 1000",
        "wm train --log demos --run NAME",
        "wm train --model apv_cpu --pretrained videos --log demos",
    ),
    "pretrain": (
        "wm pretrain --model apv_cpu --log videos --steps 20000 --run videos",
        "wm pretrain --model apv_cpu --log reach --log push:0.5 --camera corner,corner2",
    ),
    "average": ("wm average runs/NAME --last 10",),
    "collect": (
        "wm collect --out demos --task window-close-v3 --episodes 20",
        "wm collect --out videos --task reach-v3,push-v3 --camera corner,corner2",
        "wm collect --out play --robot arm_sim --policy play --episodes 100",
    ),
    "eval": (
        "wm eval --weights window-close --episodes 20",
        "wm eval --weights runs/NAME/weights --csv episodes.csv",
        "wm eval --weights arm-goal --horizon 3 --samples 64 --iterations 4 --execute 4",
        "wm eval --policy random --task reach-v3",
    ),
    "study": ("wm study tasks --set easy",),
    "study tasks": (
        "wm study tasks --set easy --minutes 30",
        "wm study tasks --tasks coffee-button,door-open --demos 20 --folder runs/four",
    ),
    "compare": (
        "wm compare runs/mwm_s0 runs/mwm_s1 runs/dreamer_v3_s0 runs/dreamer_v3_s1",
        "wm compare runs/cartpole_* --metric return --out cartpole",
    ),
    "report": ("wm report NAME", "wm report runs/NAME --last 20 --out report"),
    "replay": ("wm replay runs/NAME --episode 3",),
    "models": ("wm models", "wm models show mwm_cpu"),
    "models show": ("wm models show mwm_cpu", "wm models show dino_wm_cpu"),
    "weights": ("wm weights", "wm weights import dino_wm outputs/pusht"),
    "weights import": (
        "wm weights import dino_wm outputs/pusht",
        "wm weights import dino_wm outputs/wall --data data/wall_single",
    ),
    "bench": ("wm bench", "wm bench models sampler --quick"),
    "faults": ("wm faults --out faults",),
    "completion": (
        "source <(wm completion bash)",
        "wm completion bash > ~/.local/share/bash-completion/completions/wm",
    ),
    "arm": (
        "wm arm check --robot ur5e",
        "wm arm stop",
        "wm arm clear && wm arm resume",
    ),
    "arm check": ("wm arm check --robot ur5e", "wm arm check --robot my_arm.yaml --move"),
    "arm safety": ("wm arm safety --robots ur5e fr3 --steps 100000",),
    "arm goal": ("wm arm goal goal.png", "wm arm goal --here", "wm arm goal --keep goal.png"),
    "arm demo": ("wm arm demo", "wm arm demo --weights arm-reach --episodes 3"),
    "arm speed": ("wm arm speed 25",),
    "arm stop": ("wm arm stop", "wm arm stop --ns left/robot"),
    "arm clear": ("wm arm clear",),
    "arm resume": ("wm arm resume",),
    "arm home": ("wm arm home",),
    "arm pause": ("wm arm pause",),
    "arm reset": ("wm arm reset",),
    "arm recover": ("wm arm recover",),
    "arm activate": ("wm arm activate",),
    "arm deactivate": ("wm arm deactivate",),
    "log": ("wm log info runs/NAME", "wm log import video videos.mp4 LOG"),
    "log info": ("wm log info runs/NAME", "wm log info LOG --json"),
    "log show": ("wm log show runs/NAME --episode 3", "wm log show LOG --episode 0 --rerun"),
    "log stats": ("wm log stats runs/NAME --figure stats.png",),
    "log verify": ("wm log verify runs/NAME",),
    "log torture": ("wm log torture /tmp/torture --kills 20 --out torture",),
    "log sweep": ("wm log sweep --trials 20 --out sweep",),
    "log archive": ("wm log archive runs/NAME s3://bucket/folder --follow",),
    "log import": (
        "wm log import robomimic demo.hdf5 LOG",
        "wm log import rosbag bag_folder LOG --topics topics.yaml",
    ),
    "log export": ("wm log export lerobot runs/NAME dataset",),
}
