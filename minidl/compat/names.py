"""What a name of PyTorch is that minidl lacks, and what to write instead."""

import difflib
import re
from pathlib import Path

VERSIONS = {"PyTorch": "2.13", "torchvision": "0.28"}  # whose names the file lists
FILE = Path(__file__).with_name("torch_names.txt")

# What a name is, by the first pattern found in it
KINDS = {
    r"\.Tensor\.|\.Module\.|\.Optimizer\.": "a method",
    r"optim\.[A-Z]\w+$": "an optimiser",
    r"lr_scheduler\.[A-Z]": "a learning-rate schedule",
    r"\.nn\.\w+Loss$": "a loss",
    r"\.nn\.[A-Z]": "a layer",
    r"\.datasets\.[A-Z]": "a data set",
    r"\.transforms\.[A-Z]": "a transform",
    r"\.models\.[a-z]": "a model",
    r"\.[A-Z]\w*$": "a class",
    r"\.[a-z0-9_]+$": "a function",
}

# Families of names: what they are, or what they are for, and what to write instead
FAMILIES = {
    r"\.utils\.rnn": ("for recurrent layers", "pad sequences with F.pad, to tensors of one length"),
    r"\.(RNN|LSTM|GRU)|\.(lstm|gru|rnn_\w+)(_cell)?$": (
        "a recurrent layer", "write its steps with nn.Linear, torch.sigmoid and torch.tanh in a loop over time",
    ),
    r"Transformer|Multihead|multi_head|attention": (
        "for attention", "write F.softmax(q @ k.transpose(-2, -1) / d**0.5, dim=-1) @ v, with q, k, v from nn.Linear",
    ),
    r"(Conv|Pool|Pad|Norm|conv_?\w*|pool)1d$": (
        "for sequences", "use the 2d one on x.unsqueeze(2), with height 1, and squeeze(2) its result",
    ),
    r"[a-z]3d$": ("for volumes", ""),
    r"\.Lazy": ("a layer that takes its input size from the first input", "use the one without Lazy, and give the size"),
    r"SyncBatchNorm": ("a layer for training on several GPUs", "use nn.BatchNorm2d"),
    r"sparse|coo|csr|csc|bsr": ("for sparse tensors", "use dense tensors"),
    r"\.fft|stft": ("for Fourier transforms", "use numpy.fft on x.numpy(), which has no gradient"),
    r"[cC]omplex|\.c(float|double|half)$|\.(polar|angle|real|imag)$|conj": (
        "for complex numbers", "keep the real and the imaginary part in two tensors",
    ),
    r"\.distributions": ("for random variables", "write the formula: mu + sigma * torch.randn_like(mu) is a normal draw"),
    r"[dD]istributed|\.rpc": ("for training in several processes", "train in one process, without it"),
    r"\.(jit|onnx|fx|export|package|compiler|_dynamo)\b": ("for compiled and exported models", "use the model itself"),
    r"quanti[sz]|\.q?u?int\d|\.qat\b|\.ao\b|fake_q": ("for quantised models", "stay with float32"),
    r"float8|bfloat16|BFloat16": ("for a dtype that NumPy lacks", "use float32"),
    r"\.hub|\.models": ("for ready-made models", "write the model with torch.nn; torch.load reads its weights (.pth)"),
    r"\.transforms\.v2": ("for new-style transforms", "use torchvision.transforms"),
    r"\.io\b": ("for image files", "read them with Pillow: PIL.Image.open(path)"),
    r"profiler|benchmark": ("for measuring time", "use cProfile, or time.perf_counter before and after"),
    r"\.func\b|vmap|autograd\.functional": ("for transformed functions", "take gradients with torch.autograd.grad"),
    r"\.checkpoint": ("for saving memory", "call the function itself"),
    r"\.multiprocessing": ("for several processes", "use Python's multiprocessing"),
    r"\.cuda\.(\w*[sS]tream|Event|\w*[gG]raph)": ("for the order of work on a GPU", "leave it out"),
    r"\.linalg|cholesky|svd|symeig|lstsq|inverse|\.eig|\.qr$|\.det$": (
        "for linear algebra", "use numpy.linalg on x.numpy(), which has no gradient",
    ),
    r"\.special": ("for special functions", "use scipy.special on x.numpy(), which has no gradient"),
    r"Storage|storage": ("for a tensor's memory", "use x.numpy(), which shares it"),
    r"\.datasets\.[A-Z]": ("a data set", "ImageFolder reads images from folders, one for each class"),
    r"transforms\.Scale$": ("a transform", "use Resize"),
}  # fmt: skip


def _listed() -> tuple[dict[str, set[str]], dict[str, set[str]]]:
    """The public names of PyTorch's modules and classes, and the names that PyTorch itself has dropped."""
    current: dict[str, set[str]] = {}
    dropped: dict[str, set[str]] = {}
    for line in re.split(r"\n(?! )", FILE.read_text(encoding="utf-8").rstrip()):  # indented lines go on
        heading, _, names = line.partition(":")
        (dropped if heading.startswith("dropped ") else current)[heading.split()[-1]] = set(names.split())
    return current, dropped


NAMES, DROPPED = _listed()
MODULES = NAMES.pop("modules")  # of all these the names are not listed


def describe(name: str) -> str:
    """One sentence about a name that minidl lacks, such as "torch.nn.LSTM", and what to write instead.

    >>> describe("torch.jit.script")
    'torch.jit.script is a function of PyTorch for compiled and exported models; minidl does not have it: use the model itself'
    >>> describe("torch.nn.Relu")
    'torch.nn.Relu is neither in minidl nor in PyTorch 2.13; the nearest name is torch.nn.ReLU'
    """
    return f"{name} is {explain(name)}"


def explain(name: str) -> str:
    """What `describe` says after the verb."""
    module, _, own = name.rpartition(".")
    library = "torchvision" if name.startswith("torchvision") else "PyTorch"
    listed = own in NAMES.get(module, ())
    kind = "a module" if name in MODULES and not listed else next(k for p, k in KINDS.items() if re.search(p, name))
    what, instead = next((about for p, about in FAMILIES.items() if re.search(p, name)), (kind, ""))
    what = f"{kind} of {library} {what}" if what.startswith("for ") else f"{what} of {library}"
    advice = f": {instead}" if instead else ""
    if own in DROPPED.get(module, ()):
        return f"{what} of old, which {library} itself has dropped{advice}"
    if own.startswith("_"):
        return f"a private name of {library}; minidl does not have it"
    if listed or name in MODULES:
        return f"{what}; minidl does not have it{advice}"
    if module not in NAMES:
        return f"part of {module}, {explain(module)}"
    small = {n.lower(): n for n in NAMES[module]}
    near = difflib.get_close_matches(own.lower(), small, 1)
    hint = f"; the nearest name is {module}.{small[near[0]]}" if near else ""
    return f"neither in minidl nor in {library} {VERSIONS[library]}{hint}"
