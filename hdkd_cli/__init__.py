"""hdkd: train, calibrate and deploy image classifiers with several exits.

    import hdkd_cli

    run = hdkd_cli.train("digits", set={"training.epochs": 2})
    run.calibrate("optimal")
    model = hdkd_cli.load(run.path)
    for prediction in model.predict(["a.png", "b.png"], budget=0.5):
        print(prediction.class_name, prediction.exit, prediction.confidence)

Whatever a verb of the command line can do, `Run` and `Model` can. For a training loop of one's own:
`Terms`, `HarmonizedWeights`, `Harmonizer`. Importing this package loads no torch; using it does.
"""

from __future__ import annotations

from importlib import import_module
from os import PathLike
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hdkd_cli.errors import HdkdError as HdkdError
    from hdkd_cli.evaluation.calibration import register_policy as register_policy
    from hdkd_cli.evaluation.confidence import register_confidence as register_confidence
    from hdkd_cli.evaluation.policy import ExitPolicy as ExitPolicy
    from hdkd_cli.evaluation.scores import Scores as Scores
    from hdkd_cli.inference.early_exit import EarlyExit as EarlyExit
    from hdkd_cli.library.compare import compare as compare
    from hdkd_cli.library.model import Model as Model
    from hdkd_cli.library.run import Run as Run
    from hdkd_cli.library.score_file import ScoreFile as ScoreFile
    from hdkd_cli.library.training import resume as resume
    from hdkd_cli.library.training import train as train
    from hdkd_cli.method.harmonizer import Harmonizer as Harmonizer
    from hdkd_cli.method.terms import Term as Term
    from hdkd_cli.method.terms import TermGroup as TermGroup
    from hdkd_cli.method.terms import Terms as Terms
    from hdkd_cli.method.validation import BalancedValidation as BalancedValidation
    from hdkd_cli.method.weights import HarmonizedWeights as HarmonizedWeights
    from hdkd_cli.models.contract import MultiExitNet as MultiExitNet
    from hdkd_cli.models.contract import Stage as Stage
    from hdkd_cli.records.comparison import Comparison as Comparison
    from hdkd_cli.records.evaluation import Anytime as Anytime
    from hdkd_cli.records.evaluation import Budget as Budget
    from hdkd_cli.records.prediction import Prediction as Prediction
    from hdkd_cli.records.profile import Profile as Profile
    from hdkd_cli.testing import check_network as check_network

# Where each name is; it is imported when it is first used.
_PLACES = {
    "Anytime": "records.evaluation",
    "BalancedValidation": "method.validation",
    "Budget": "records.evaluation",
    "Comparison": "records.comparison",
    "EarlyExit": "inference.early_exit",
    "ExitPolicy": "evaluation.policy",
    "HarmonizedWeights": "method.weights",
    "Harmonizer": "method.harmonizer",
    "HdkdError": "errors",
    "Model": "library.model",
    "MultiExitNet": "models.contract",
    "Prediction": "records.prediction",
    "Profile": "records.profile",
    "Run": "library.run",
    "ScoreFile": "library.score_file",
    "Scores": "evaluation.scores",
    "Stage": "models.contract",
    "Term": "method.terms",
    "TermGroup": "method.terms",
    "Terms": "method.terms",
    "check_network": "testing",
    "compare": "library.compare",
    "register_confidence": "evaluation.confidence",
    "register_policy": "evaluation.calibration",
    "resume": "library.training",
    "train": "library.training",
}

__all__ = [
    "Anytime",
    "BalancedValidation",
    "Budget",
    "Comparison",
    "EarlyExit",
    "ExitPolicy",
    "HarmonizedWeights",
    "Harmonizer",
    "HdkdError",
    "Model",
    "MultiExitNet",
    "Prediction",
    "Profile",
    "Run",
    "ScoreFile",
    "Scores",
    "Stage",
    "Term",
    "TermGroup",
    "Terms",
    "__version__",
    "check_network",
    "compare",
    "load",
    "register_confidence",
    "register_policy",
    "resume",
    "train",
]


def load(run: str | PathLike[str], *, trust_code: bool = False, **use: Any) -> Model:
    """The model of a run folder, or of one checkpoint in it (``RUN/checkpoints/step-100``).

    Args:
        run: The folder.
        trust_code: Import the code that the run's settings name.
        **use: ``device``, ``batch_size``, ``data_dir``, ``runtime``, ``allow_mismatch``: see `Run`.

    Raises:
        UsageError: the run names code that is not trusted.
        RunError: there is no run at that path, or it never began to train.
        CheckpointError: it has no usable checkpoint.
    """
    from hdkd_cli.library.model import Model
    from hdkd_cli.library.run import Run

    model = Model(Run.open(run, trust_code=trust_code, **use))
    _ = model.net  # what is wrong with the run is told here
    return model


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib import metadata

        try:
            return metadata.version("hdkd")
        except metadata.PackageNotFoundError:
            return "0.0.0"  # run from a checkout that is not installed
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_PLACES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
