"""Train, predict, calibrate and compare: Python alone, as in a notebook."""

import hdkd_cli

hdkd = hdkd_cli.train("digits", set={"training.epochs": 2})
joint = hdkd_cli.train("digits", set={"training.epochs": 2, "method": "joint"})

policy = hdkd.calibrate("optimal")
for point in hdkd.evaluate(policy).points[::5]:
    print(f"{point.macs / 1e6:6.2f} M MACs   {point.top1_pct:5.1f} %")

batch = next(hdkd.images.evaluation_batches("test", batch_size=8, device=hdkd.where))
model = hdkd_cli.load(hdkd.path)
data = model.settings.data
pixels = batch.images * data.std[0] + data.mean[0]  # as they were before they were normalised
for prediction, label in zip(model.predict(pixels.clamp(0, 1)), batch.labels, strict=True):
    print(f"{prediction.class_name} ({label}) at exit {prediction.exit}")

for difference in hdkd_cli.compare([joint, hdkd], budgets=["0.5"]).differences:
    print(f"{difference.what}: {difference.difference_pct:+.1f} points, {difference.verdict}")
