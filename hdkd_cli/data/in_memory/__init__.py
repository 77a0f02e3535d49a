"""Small images: decoded once, held on the training device, augmented as whole batches.

images     batches out of one tensor
pool       that tensor, decoded once and kept on disk
augment    random crops and mirrorings of a batch
"""

from hdkd_cli.data.in_memory.images import MemoryImages

__all__ = ["MemoryImages"]
