"""What updating the weights more or less often does to accuracy: trained runs side by side.

    for n in 10 1 5 20; do hdkd train cifar100-small --data-dir cifar100 --name every-$n \\
        --set data.train_per_class=100 --set data.val_per_class=50 --set training.epochs=30 \\
        --set weights.interval=$n; done
    python benchmarks/interval.py runs/every-10 runs/every-1 runs/every-5 runs/every-20

Test accuracy of every exit, the difference of the mean over exits to the first run with its 95 %
interval (paired bootstrap over test images, so it does not tell how much seeds differ), and what
the weights of the labels' and the teachers' losses came to on average. Writes
benchmarks/results/interval.json. K exits, N samples, S records of the log.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from harness import write_record

from hdkd_cli.evaluation.bootstrap import paired_difference
from hdkd_cli.library.run import Run
from hdkd_cli.runs.folder import RunFolder
from hdkd_cli.training.schedule import weights_learning_rate
from hdkd_cli.ui.report.history import read_history


def compare(runs: list[RunFolder], data_root: str | None) -> list[dict[str, object]]:
    """A row a run; the first one is what the others are compared with."""
    rows, first_N = [], None
    for run in runs:
        data_dir = None if data_root is None else Path(data_root)
        scores = Run(folder=run, data_dir=data_dir, device="cpu", note=print).scores("test")
        right_KN = (scores.logits_KNC.argmax(-1) == scores.labels_N).double().numpy()
        mean_N = 100 * right_KN.mean(axis=0)
        first_N = mean_N if first_N is None else first_N
        over_first = paired_difference(mean_N, first_N)
        settings, history = run.settings(), read_history(run)
        assert history is not None, f"{run.path} has no log of its weights"
        labels_S = history.weights_ST[:, : history.num_exits].mean(axis=1)
        steps = history.started["steps_per_epoch"] * settings.training.epochs
        updates = steps // settings.weights.interval
        rows.append(
            {
                "interval": settings.weights.interval,
                "val_batch_size": settings.val_batch_size,
                "weights_lr": settings.weights.lr or weights_learning_rate(updates),
                "seed": settings.training.seed,
                "epochs": settings.training.epochs,
                "test_top1_pct": (100 * right_KN.mean(axis=1)).round(2).tolist(),
                "mean_pct": float(mean_N.mean()),
                "over_first": [over_first.value, over_first.low, over_first.high],
                "label_weight": float(labels_S[-1]),
                "largest_label_weight": float(labels_S.max()),
                "teacher_weight": float(history.weights_ST[-1, history.num_exits :].mean()),
            }
        )
    return rows


def main() -> None:
    """Compare, print a table, write the record."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN")
    parser.add_argument("--data-dir")
    arguments = parser.parse_args()
    rows = compare([RunFolder.open(path) for path in arguments.runs], arguments.data_dir)
    print(
        "interval  val batch  rate     seed  mean %  over the first (95 %)    weights     exits %"
    )
    for row in rows:
        value, low, high = row["over_first"]
        exits = " ".join(f"{pct:.2f}" for pct in row["test_top1_pct"])
        print(
            f"{row['interval']:8}  {row['val_batch_size']:9}  "
            f"{row['weights_lr']:<7.3g}  {row['seed']:4}  "
            f"{row['mean_pct']:6.2f}  "
            f"{value:+.2f} ({low:+.2f} to {high:+.2f})  "
            f"{row['label_weight']:.2f} {row['teacher_weight']:.2f}   {exits}"
        )
    write_record("interval", "test accuracy by interval between updates of the weights", rows=rows)


if __name__ == "__main__":
    main()
