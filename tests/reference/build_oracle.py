"""How data/oracle.safetensors was derived from the full score files; run by hand.

    python tests/reference/build_oracle.py FOLDER

FOLDER holds val.safetensors and test.safetensors (logits float16 (K, N, C), labels, macs): scores
of a 5-exit MSDNet trained on CIFAR-100 with 100 images per class. Kept of them: each exit's largest
probability and predicted class. The softmax is written out in NumPy and shares no code with the
package. expected.json lists the published budget family on the same scores; it was computed by
another program.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file


def largest_probability(logits: np.ndarray) -> np.ndarray:
    """float32: 1 / Σ exp(z − max z)."""
    z = logits.astype(np.float32)
    return 1 / np.exp(z - z.max(axis=-1, keepdims=True)).sum(axis=-1)


def main(folder: Path) -> None:
    """Write data/oracle.safetensors beside this script."""
    kept: dict[str, np.ndarray] = {}
    for split in ("val", "test"):
        scores = load_file(folder / f"{split}.safetensors")
        kept[f"{split}.confidence"] = largest_probability(scores["logits"])
        kept[f"{split}.prediction"] = scores["logits"].argmax(axis=-1).astype(np.uint8)
        kept[f"{split}.labels"] = scores["labels"].astype(np.uint8)
        kept["macs"] = scores["macs"]
    save_file(kept, Path(__file__).parent / "data" / "oracle.safetensors")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
