"""What users of timm expect of a training run: each part does what it says, and is replayed with
the same bits when a run was interrupted."""

import cut_networks  # noqa: F401 (names a small network)
import pytest
import torch
from small_runs import changed, small_settings
from test_loop import StopAt, assert_same_bits, begin, final_tensors, go
from torch.nn import functional as F

from hdkd_cli.data import Batch, open_data
from hdkd_cli.errors import InterruptedRun, SettingsError
from hdkd_cli.method.terms import Terms
from hdkd_cli.runs.network import trained_network
from hdkd_cli.settings.data import DataSettings
from hdkd_cli.settings.layers import resolve
from hdkd_cli.settings.networks import BackboneSettings
from hdkd_cli.settings.schema import TrainingSettings
from hdkd_cli.training.averaging import Average
from hdkd_cli.training.mixing import mixing

CPU = torch.device("cpu")


def with_(section: str, **values: object):
    return changed(changed(small_settings(), "training", log_every=1), section, **values)


def stochastic_depth():
    model = BackboneSettings(name="torchvision:tiny_convnext", exits=2, drop_path=0.5)
    settings = with_("training", max_steps=4)
    return settings.model_copy(update={"model": model})


@pytest.mark.parametrize(
    "settings",
    [
        with_("objective", label_smoothing=0.1),
        with_("training", mixup=0.8),
        with_("training", cutmix=1.0, accumulate=2),
        with_("training", mixup=0.8, cutmix=1.0, average=0.9),
        with_("data", rand_augment=2, workers=0),
        stochastic_depth(),
    ],
    ids=["smoothing", "mixup", "cutmix", "both-average", "rand-augment", "stochastic-depth"],
)
def test_interrupted_and_resumed_gives_the_same_bits_and_other_ones_than_without(
    runs_dir, whole_run, settings
):
    whole, parts = whole_run(settings), begin(runs_dir, settings)
    with pytest.raises(InterruptedRun):
        go(parts, settings, sink=StopAt(3))
    go(parts, settings, resume=True)
    assert_same_bits(whole, parts)

    if isinstance(settings.model, BackboneSettings):
        without = changed(settings, "model", drop_path=0.0)
    else:
        without = with_("training")
    first, second = final_tensors(whole), final_tensors(whole_run(without))
    assert any(not torch.equal(first[k], second[k]) for k in first.keys() & second.keys())


def test_smoothed_and_mixed_labels_are_torchs_own_for_every_exit():
    logits_KBC = torch.randn(3, 5, 4, generator=torch.Generator().manual_seed(0))
    labels_B = torch.tensor([0, 1, 2, 3, 0])
    mixed_BC = 0.3 * F.one_hot(labels_B, 4) + 0.7 * F.one_hot(labels_B.roll(1), 4)
    terms = Terms(3, "none", 3.0, label_smoothing=0.2)
    for labels in (labels_B, mixed_BC):
        wanted = [F.cross_entropy(z, labels, label_smoothing=0.2) for z in logits_KBC]
        torch.testing.assert_close(terms(logits_KBC, labels), torch.stack(wanted))


@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
def test_labels_are_mixed_as_the_images_are(kind):
    """Images that are blank but for their class's number show how much of whom is in them."""
    mix = mixing(TrainingSettings(**{kind: 1.0}), num_classes=4)
    labels_B = torch.arange(4)
    images = labels_B.float()[:, None, None, None].expand(4, 3, 8, 8).contiguous()
    torch.manual_seed(0)
    mixed, labels_BC = mix(Batch(images, labels_B))
    shown_B = mixed.mean((1, 2, 3))
    torch.testing.assert_close(shown_B, labels_BC @ torch.arange(4.0))
    torch.testing.assert_close(labels_BC.sum(1), torch.ones(4))
    assert not torch.equal(labels_BC, F.one_hot(labels_B, 4).float())


def test_the_average_is_the_sum_it_stands_for():
    net = torch.nn.Linear(2, 1, bias=False).double()
    average = Average(net, decay=0.5)
    average.begin(net)
    wanted = net.weight.detach().clone()
    for step in range(12):
        with torch.no_grad():
            net.weight += 1
        average.update(net, step)
        decay = min(0.5, (2 + step) / (11 + step))
        wanted = decay * wanted + (1 - decay) * net.weight.detach()
    torch.testing.assert_close(average.parameters["weight"], wanted)
    own = net.weight.detach().clone()
    with average.in_use(net):
        assert torch.equal(net.weight, average.parameters["weight"])
    assert torch.equal(net.weight, own)


def test_what_is_saved_and_evaluated_is_the_average(whole_run):
    run, plain = whole_run(with_("training", average=0.9)), whole_run(with_("training"))
    name = "stages.0.classifier.4.weight"
    saved = dict(trained_network(run).named_parameters())[name]
    trained = run.checkpoint().tensors("optimizer")[0][f"trained.{name}"]
    assert not torch.equal(saved, trained)
    assert torch.equal(trained, dict(trained_network(plain).named_parameters())[name])


def test_random_operations_need_images_one_by_one():
    data = {"rand_augment": 2, "train_per_class": 2, "val_per_class": 2}
    assert type(open_data(DataSettings(**data)).images).__name__ == "LoadedImages"
    with pytest.raises(SettingsError, match=r"in_memory = always .* data.rand_augment"):
        open_data(DataSettings(in_memory="always", **data))


def test_losses_of_your_own_do_not_see_mixed_labels():
    with pytest.raises(SettingsError, match="one label per image"):
        resolve(
            environment={},
            assignments=("training.mixup=0.2", "objective.extra_terms=a.b:c"),
        )
