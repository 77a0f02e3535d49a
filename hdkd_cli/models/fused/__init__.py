"""BatchNorm and ReLU as one operator, for training on CPUs in NHWC memory order."""

from hdkd_cli.models.fused.batch_norm_relu import batch_norm_relu
from hdkd_cli.models.fused.library import Unavailable, available, compiler, library

__all__ = ["Unavailable", "available", "batch_norm_relu", "compiler", "library"]
