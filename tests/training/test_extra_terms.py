"""A loss term from outside goes through training, learning, live view and report untouched."""

import io
import sys
from types import ModuleType

import pytest
import torch
from rich.console import Console
from small_runs import changed, small_settings

from hdkd_cli.data import open_data
from hdkd_cli.errors import SettingsError
from hdkd_cli.method import HarmonizedWeights, Term, TermGroup, Terms
from hdkd_cli.runs.folder import RunFolder
from hdkd_cli.training.events import RunStarted, StepLogged
from hdkd_cli.training.session import run_training
from hdkd_cli.ui.progress import LiveProgress
from hdkd_cli.ui.report.drawing import drawn
from hdkd_cli.ui.report.history import read_history
from hdkd_cli.ui.report.training_figures import training_figures


class Calm(TermGroup):
    """Minus the entropy of every exit (Pereyra et al., 2017), and how far the exits are apart."""

    def __init__(self, num_exits):
        self.terms = (
            *(Term(f"calm[{k}]", "calm", student=k) for k in range(1, num_exits + 1)),
            Term("apart", "apart"),
        )

    def __call__(self, logits_KBC, _labels_B):
        log_p = logits_KBC.float().log_softmax(-1)
        calm_K = (log_p.exp() * log_p).sum(-1).mean(1)
        return torch.cat([calm_K, logits_KBC.float().var(0).mean().view(1)])


class OneTooMany(Calm):
    def __call__(self, logits_KBC, _labels_B):
        return super().__call__(logits_KBC, _labels_B)[:-1]


class Waits(Calm):
    def __call__(self, logits_KBC, _labels_B):
        return torch.from_numpy(logits_KBC.numpy()).mean().expand(4)  # forward mode cannot follow


@pytest.fixture(autouse=True)
def users_terms(monkeypatch):
    module = ModuleType("users_terms")
    module.calm, module.one_too_many, module.waits = Calm, OneTooMany, Waits
    module.labels = lambda num_exits: Terms(num_exits, "none", 1.0).groups[0]
    module.number = lambda num_exits: num_exits
    monkeypatch.setitem(sys.modules, "users_terms", module)


def settings_with(*names, **sections):
    return changed(small_settings(**sections), "objective", extra_terms=names)


def test_a_term_from_outside_is_trained_learned_shown_and_reported(tmp_path):
    settings = settings_with("users_terms:calm")
    run = RunFolder.create(tmp_path, "test", settings)
    console, events = Console(file=io.StringIO(), width=200), []
    with LiveProgress(console) as live:
        run_training(
            run,
            settings,
            open_data(settings.data),
            torch.device("cpu"),
            sinks=[events.append, live],
        )

    (started,) = [e for e in events if isinstance(e, RunStarted)]
    names = [term.name for term in started.terms]
    assert names[-4:] == ["calm[1]", "calm[2]", "calm[3]", "apart"]
    last = [e for e in events if isinstance(e, StepLogged)][-1]
    assert len(last.weights_T) == len(last.terms_T) == 10
    assert all(weight != 1 for weight in last.weights_T[-4:])  # they were learned
    assert max(last.terms_T[6:9]) < 0  # minus an entropy

    table = console.file.getvalue().splitlines()
    assert "kd 3→" in table[-5]
    assert table[-5].split()[-2:] == ["apart", "calm"]
    assert table[-1].split() == ["all", "·", "·", "·", f"{last.weights_T[-1]:.2f}", "·"]
    assert table[-4].split()[-1] == f"{last.weights_T[6]:.2f}"

    history = read_history(run)
    assert [term.kind for term in history.terms[-2:]] == ["calm", "apart"]
    assert history.num_exits == 3
    curves = next(figure for figure in training_figures(history, learned=True))
    assert curves.columns[-1] == "apart"
    assert "calm" in drawn(curves).svg


def test_weights_from_outside_start_at_one_and_keep_their_sum():
    terms = Terms(3, "last", 3.0, [Calm(3)])
    options = {"distillation_sum": None, "dbt_share": 0.25, "seed": 0}
    for init in ("balanced", "halved", "last", "supervision", "random", "uniform", "dbt"):
        weights = HarmonizedWeights(
            terms, init=init, parametrisation="grouped", learned=True, **options
        )
        assert weights()[-4:].tolist() == [1, 1, 1, 1]
        weights.raw_T += torch.arange(9.0)
        assert weights()[-4:].sum().item() == pytest.approx(4)
        assert weights()[-1] > weights()[-2]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("users_terms:one_too_many", "returned (3,) for 4 terms"),
        ("users_terms:waits", "differentiable in forward mode"),
        ("users_terms:labels", "more than one loss term is called ce[1], ce[2], ce[3]"),
        ("users_terms:number", "TermGroup is needed"),
        ("users_terms:nothing", "has no function 'nothing'"),
        ("nowhere:terms", "nowhere cannot be imported"),
    ],
)
def test_terms_that_cannot_be_used_are_refused_before_training(tmp_path, name, said):
    settings = settings_with(name)
    run = RunFolder.create(tmp_path, "test", settings)
    data, cpu = open_data(settings.data), torch.device("cpu")
    with pytest.raises(SettingsError) as refused:
        run_training(run, settings, data, cpu, sinks=[])
    assert said in f"{refused.value} {refused.value.hint}"
    assert "objective.extra_terms" in str(refused.value)
