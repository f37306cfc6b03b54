"""What a DDPM of digits draws, read by a classifier that has nothing to do with it.

    python benchmarks/digits.py runs/digits/model [--n 1000] [--steps 100] [--guidance 2] [--bits 300]

The judge is scikit-learn's support vector machine, trained on the 1,497 real digits that training
sees too; its share of right answers on the 300 others says how far it can be believed. The model is
what `suffuse train ddpm --preset digits` leaves. Three rows: samples of no class (mean entropy of the
judge's answer, every digit's share), samples of asked classes under guidance (how many are read as
what was asked), and bits per dimension of the 300 (the whole chain, or `--respacing`).
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np
from sklearn.svm import SVC

import suffuse
from suffuse.data.classes import DIGITS, digits
from suffuse.evaluation.likelihood import evaluate_likelihood, held_out_digits
from suffuse.systems.ddpm import DDPM

ENTROPY, SPREAD, ASKED = 0.5, 0.4, 0.95  # the goals


def judge() -> tuple[SVC, float]:
    """A classifier with probabilities, and how often it is right on digits it never saw."""
    pictures, labels = digits("train")
    found = SVC(gamma=1e-3, C=10.0, probability=True, random_state=0)
    found.fit(pictures.reshape(len(labels), -1) / (255 / 16), labels)
    unseen, true = digits("test")
    return found, float((read(found, unseen).argmax(1) == true).mean())


def read(judge: SVC, pictures: np.ndarray) -> np.ndarray:
    """Pictures (N, 8, 8) uint8 -> probabilities of the digits (N, 10)."""
    return judge.predict_proba(pictures.reshape(len(pictures), -1) / (255 / 16))


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

    svm, right = judge()
    system = suffuse.load(options.model, device="cpu", dtype="float32")
    assert isinstance(system, DDPM), "not a DDPM"
    how = {"steps": options.steps, "sampler": options.sampler}
    print("| | measured | goal | reached |\n|---|---|---|---|")
    row("the judge on real digits it never saw", f"{right:.1%}", "", None)

    start = time.perf_counter()
    told = read(svm, drawn(system, options.n, options.together, seed=options.seed, **how))
    seconds = (time.perf_counter() - start) / options.n
    entropy = float(-(told * np.log(told.clip(1e-12))).sum(1).mean())
    shares = np.bincount(told.argmax(1), minlength=10) / options.n
    row("mean entropy of a sample, nats", f"{entropy:.3f}", f"< {ENTROPY}", entropy < ENTROPY)
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
        found = evaluate_likelihood(
            system, held_out_digits(options.bits), options.together, options.respacing
        )
        value = f"{found.total:.3f} ± {found.error:.3f} ({found.steps} steps)"
        row("bits/dim of held-out digits", value, "", None)


if __name__ == "__main__":
    main()
