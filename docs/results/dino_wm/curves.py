"""Plot the losses of a run with those of the prediction that nothing changes.

python docs/results/dino_wm/curves.py runs/NAME    # writes NAME.csv and NAME.png beside this file
"""

from __future__ import annotations

import csv
import sys
from collections import defaultdict
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

FOLDER = Path(__file__).parent
SHOWN = ("wm/loss", "wm/still_loss", "wm/visual_loss", "wm/proprio_loss", "probe/loss")


def main(run: Path) -> None:
    curves: dict[str, list[tuple[int, float]]] = defaultdict(list)
    with (run / "metrics" / "train.csv").open() as file:
        for row in csv.DictReader(file):
            if row["metric"] in SHOWN:
                curves[row["metric"]].append((int(row["update"]), float(row["value"])))
    with (FOLDER / f"{run.name}.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["update", *SHOWN])
        columns = [dict(curves[name]) for name in SHOWN]
        for update in sorted(columns[0]):
            rows.writerow(
                [update, *(f"{column.get(update, float('nan')):.5g}" for column in columns)]
            )
    figure, axis = plt.subplots(figsize=(6, 3.5), layout="constrained")
    for name, curve in curves.items():
        axis.plot(*zip(*curve, strict=True), label=name)
    axis.set(xlabel="updates", ylabel="mean squared error", yscale="log")
    axis.legend(fontsize=8)
    figure.savefig(FOLDER / f"{run.name}.png", dpi=110)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
