"""Writes kernel_halving.json: what goodpoints' halve_K keeps for stated Gram matrices and uniforms.

Run where goodpoints==0.6.3 is installed (MIT licence, source build, needs gcc):

    python tests/golden/make_kernel_halving.py

The file holds points and uniforms as decimals, so that it depends on no random stream.
"""

import json
from pathlib import Path

import numpy as np

GOLDEN = Path(__file__).with_name("kernel_halving.json")


def gram(kernel: str, points: list[list[float]]) -> np.ndarray:
    """The Gram matrix of a named kernel: gaussian, exponential or linear."""
    x = np.array(points)
    inner = x @ x.T
    if kernel == "gaussian":
        norms = np.diag(inner)
        return np.exp(inner - norms[:, None] / 2 - norms / 2)
    return np.exp(inner) if kernel == "exponential" else inner


def cases() -> list[dict]:
    """Twenty inputs: three kernels, 4 to 64 points with repeats among them, two failure probabilities."""
    rng = np.random.default_rng(2021)
    made = []
    for number in range(20):
        n, d = int(rng.choice([4, 10, 32, 64])), int(rng.integers(1, 4))
        points = rng.standard_normal((n, d)).round(3)
        if number % 4 == 0:
            points[n // 2 :] = points[: n - n // 2]  # repeated points: some pairs have b = 0 or a tie
        if number % 8 == 0:
            points[1] = points[0]
        kernel = ("gaussian", "exponential", "linear")[number % 3]
        uniforms = rng.random(n // 2).round(6)
        delta = (0.5, 0.05)[number % 2]
        made.append({"kernel": kernel, "delta": delta, "points": points.tolist(), "uniforms": uniforms.tolist()})
    return made


def kept_by_goodpoints(case: dict) -> list[int]:
    """The list of halve_K that gets the first of a pair with the probability that its text names: coresets[1]."""
    from goodpoints import ktc

    matrix = gram(case["kernel"], case["points"])
    coresets = np.empty((2, len(matrix) // 2), dtype=int)
    ktc.halve_K(matrix, case["delta"], np.array(case["uniforms"]), coresets)
    return sorted(coresets[1].tolist())


if __name__ == "__main__":
    golden = {
        "how": "goodpoints==0.6.3, ktc.halve_K, coresets[1]; written by make_kernel_halving.py",
        "cases": [{**case, "kept": kept_by_goodpoints(case)} for case in cases()],
    }
    GOLDEN.write_text(json.dumps(golden, separators=(",", ":")) + "\n")
