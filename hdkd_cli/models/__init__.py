"""Networks with several exits: the contract they keep, the architectures, what each exit costs."""

from hdkd_cli.models.build import build_model
from hdkd_cli.models.contract import MultiExitNet, Stage, State, narrow
from hdkd_cli.models.cost import ExitCosts, measure_costs
from hdkd_cli.models.equilibrium import scale_gradient
from hdkd_cli.models.msdnet import MSDNet
from hdkd_cli.models.ranet import RANet

__all__ = [
    "ExitCosts",
    "MSDNet",
    "MultiExitNet",
    "RANet",
    "Stage",
    "State",
    "build_model",
    "measure_costs",
    "narrow",
    "scale_gradient",
]
