"""Solutions of chapter 6, "Sizes"."""


def same_padding(k, d):
    return d * (k - 1) // 2


def heights(oh, k, s, p, d):
    least = (oh - 1) * s - 2 * p + d * (k - 1) + 1
    return range(least, least + s)
