"""What a name of PyTorch is that minidl lacks, and what to write instead."""

import re
from pathlib import Path

FOLDER = Path(__file__).parent
# The public names of each module and class, its submodules under "modules", and old names under "dropped torch.nn";
# indented lines go on with the names.
TEXT = (FOLDER / "torch_names.txt").read_text("utf-8")
NAMES = {heading: set(names.split()) for heading, names in re.findall(r"^(\w.*?):((?:.|\n )*)", TEXT, re.M)}
# A pattern of names, what they are or what they are for, and what to write instead; the first that fits counts
ADVICE = [line.split(" | ") for line in (FOLDER / "torch_advice.txt").read_text("utf-8").splitlines()]


def describe(name: str) -> str:
    """One sentence about a name that minidl lacks, such as "torch.nn.LSTM", and what to write instead.

    >>> describe("torch.nn.Relu")
    'torch.nn.Relu is neither in minidl nor in PyTorch 2.13'
    """
    return f"{name} is {explain(name)}"


def explain(name: str) -> str:
    """What `describe` says after the verb."""
    module, _, own = name.rpartition(".")
    library, version = ("torchvision", "0.28") if name.startswith("torchvision") else ("PyTorch", "2.13")
    known = own in NAMES.get(module, ()) or own.startswith("_")
    about = [about for pattern, *about in ADVICE if re.search(pattern, name)]
    if not known and name in NAMES["modules"]:
        known, about = True, [*[row for row in about if row[0].startswith("for ")], ["a module"]]
    kind = next(what for what, *_ in about if not what.startswith("for "))
    what, *instead = about[0]
    what = f"{kind} of {library} {what}" if what.startswith("for ") else f"{what} of {library}"
    advice = ": ".join(["; minidl does not have it", *instead])
    if known:
        return what + advice
    if own in NAMES.get(f"dropped {module}", ()):
        return f"an old name, which {library} itself has dropped{advice}"
    if module not in NAMES:
        return f"part of {module}, {explain(module)}"
    return f"neither in minidl nor in {library} {version}"
