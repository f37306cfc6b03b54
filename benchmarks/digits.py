"""What a DDPM of digits draws, read by a classifier that has nothing to do with it.

    python benchmarks/digits.py runs/digits/model [--n 1000] [--steps 100] [--guidance 2]

The judge is scikit-learn's support vector machine, calibrated, and trained on the 1,497 real digits
that the model was trained on too; how it does on the 300 others says how far to believe it. The
model is what `suffuse train ddpm --preset digits` leaves. Samples of no class give the mean entropy
of the judge's answer and every digit's share, samples of asked classes under guidance how many are
read as what was asked. Last, bits per dimension of the 300: `--bits 0` leaves them out, and
`--respacing 100` takes a shorter chain.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np
from sklearn.calibration import CalibratedClassifierCV
from sklearn.svm import SVC

import suffuse
from suffuse.data.classes import DIGITS, digits
from suffuse.evaluation.likelihood import evaluate_likelihood, held_out_digits
from suffuse.systems.ddpm import DDPM

ENTROPY, SPREAD, ASKED = 0.5, 0.4, 0.95  # the goals


def judge() -> CalibratedClassifierCV:
    """A classifier whose probabilities mean something."""
    pictures, labels = digits("train")
    found = CalibratedClassifierCV(SVC(gamma=1e-3, C=10.0), ensemble=False)
    found.fit(pictures.reshape(len(labels), -1) / (255 / 16), labels)
    return found


def read(judge: CalibratedClassifierCV, pictures: np.ndarray) -> np.ndarray:
    """Pictures (N, 8, 8) uint8 -> probabilities of the digits (N, 10)."""
    return judge.predict_proba(pictures.reshape(len(pictures), -1) / (255 / 16))


def entropy(told: np.ndarray) -> float:
    """The mean entropy of answers (N, 10), in nats."""
    return float(-(told * np.log(told.clip(1e-12))).sum(1).mean())


def drawn(system: DDPM, n: int, together: int, **asked: Any) -> np.ndarray:
    """n pictures (N, 8, 8) uint8."""
    found = system.generate(n=n, together=together, **asked)
    return np.stack([np.asarray(picture.convert("L")) for picture in found])


def row(name: str, value: str, goal: str, reached: bool | None) -> None:
    mark = "" if reached is None else "yes" if reached else "NO"
    print(f"| {name} | {value} | {goal} | {mark} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="folder of a trained model")
    parser.add_argument("--n", type=int, default=1000, help="samples of each kind")
    parser.add_argument("--steps", type=int, help="of sampling; else the model's")
    parser.add_argument("--guidance", type=float, help="of asked classes; else the model's")
    parser.add_argument("--sampler", help="else the model's")
    parser.add_argument("--together", type=int, default=100, help="samples in a batch")
    parser.add_argument("--bits", type=int, default=300, help="held-out digits to encode; 0: none")
    parser.add_argument("--respacing", help="of the chain that encodes them, such as 100")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()

    svm = judge()
    unseen, true = digits("test")
    real = read(svm, unseen)
    right = float((real.argmax(1) == true).mean())
    system = suffuse.load(options.model, device="cpu", dtype="float32")
    assert isinstance(system, DDPM), "not a DDPM"
    how = {"steps": options.steps, "sampler": options.sampler}
    print("| | measured | goal | reached |\n|---|---|---|---|")
    row("the judge on real digits it never saw", f"{right:.1%}", "", None)
    row("its mean entropy there, nats", f"{entropy(real):.3f}", "", None)

    start = time.perf_counter()
    told = read(svm, drawn(system, options.n, options.together, seed=options.seed, **how))
    seconds = (time.perf_counter() - start) / options.n
    found = entropy(told)
    shares = np.bincount(told.argmax(1), minlength=10) / options.n
    row("mean entropy of a sample, nats", f"{found:.3f}", f"< {ENTROPY}", found < ENTROPY)
    even = bool((abs(shares * 10 - 1) <= SPREAD).all())
    spread = " ".join(f"{share:.1%}" for share in shares)
    row("shares of the digits 0 to 9", spread, f"10 % ± {SPREAD * 10:.0f} %", even)
    row("seconds a sample", f"{seconds:.3f}", "", None)

    if system.model.classes:
        each = -(-options.n // len(DIGITS))
        hits = [
            read(
                svm,
                drawn(
                    system,
                    each,
                    options.together,
                    prompt=digit,
                    guidance=options.guidance,
                    seed=options.seed,
                    **how,
                ),
            ).argmax(1)
            == int(digit)
            for digit in DIGITS
        ]
        share = float(np.mean(hits))
        row("read as the digit that was asked", f"{share:.1%}", f">= {ASKED:.0%}", share >= ASKED)

    if options.bits:
        bits = evaluate_likelihood(
            system, held_out_digits(options.bits), options.together, options.respacing
        )
        value = f"{bits.total:.3f} ± {bits.error:.3f} ({bits.steps} steps)"
        row("bits/dim of held-out digits", value, "", None)


if __name__ == "__main__":
    main()
