"""Solutions of chapter 11, "Momentum and Adam, term by term"."""


def largest_stable_lr(L, mu):
    return 2 * (1 + mu) / L
