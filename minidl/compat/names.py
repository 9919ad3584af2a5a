"""What a name of PyTorch is that minidl lacks."""


def describe(name: str) -> str:
    """One sentence about a name that was asked for, such as "torch.nn.LSTM"."""
    return f"minidl does not have {name}"
