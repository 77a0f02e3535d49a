"""Build hdkd_cli/data/sources/digits.safetensors, the bundled data set, from scikit-learn's copy.

    pip install scikit-learn && python scripts/build_digits.py

The images are the 1,797 test images of the UCI set "Optical Recognition of Handwritten Digits",
unchanged: 8×8, values 0..16. 36 images of each class, spread evenly over the original order (and so
over the writers), become the test split; the others are for training and validation.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits

from hdkd_cli.files import write_tensors

TARGET = Path(__file__).parents[1] / "hdkd_cli" / "data" / "sources" / "digits.safetensors"
TEST_PER_CLASS = 36
METADATA = {
    "title": "Optical Recognition of Handwritten Digits",
    "authors": "E. Alpaydin, C. Kaynak (1998)",
    "source": "https://archive.ics.uci.edu/dataset/80/optical+recognition+of+handwritten+digits",
    "doi": "10.24432/C50P49",
    "license": "CC BY 4.0, https://creativecommons.org/licenses/by/4.0/",
    "changes": "divided into train and test; pixel values unchanged (0..16)",
}


def main() -> None:
    digits = load_digits()
    images_NHW = digits.images.astype(np.uint8)
    assert images_NHW.shape == (1797, 8, 8)
    assert (images_NHW == digits.images).all()
    is_test_N = np.zeros(len(images_NHW), dtype=bool)
    for digit in range(10):
        (of_class,) = np.nonzero(digits.target == digit)
        is_test_N[
            of_class[np.linspace(0, len(of_class) - 1, TEST_PER_CLASS).round().astype(int)]
        ] = True
    tensors = {}
    for part, chosen_N in (("train", ~is_test_N), ("test", is_test_N)):
        tensors[f"{part}.images"] = torch.from_numpy(images_NHW[chosen_N])
        tensors[f"{part}.labels"] = torch.from_numpy(digits.target[chosen_N].astype(np.int64))
    write_tensors(TARGET, tensors, METADATA)


if __name__ == "__main__":
    main()
