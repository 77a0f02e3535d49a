from dataclasses import replace

from hdkd_cli.training.events import RunStarted
from hdkd_cli.ui.progress import opening_lines

NEW = RunStarted(
    run="runs/a", first_step=0, total_steps=40, steps_per_epoch=10, epochs=4,
    samples={"train": 1187, "val": 250, "calibration": 0}, num_exits=2, parameters=1_342_350,
    macs_K=[5_900_000, 23_400_000], terms=[], weight_updates=2, device="cpu", notes=[],
)  # fmt: skip


def test_a_resumed_run_tells_its_images_and_where_it_goes_on():
    lines = opening_lines(replace(NEW, first_step=30))
    assert lines[-2:] == ["images: 1,187 train, 250 val", "going on after step 30 of 40"]


def test_a_new_run_leaves_the_images_to_the_verb_that_read_them():
    lines = opening_lines(NEW)
    assert lines[0] == "run runs/a"
    assert lines[-1] == "updates of the loss weights: 2"
