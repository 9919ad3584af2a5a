"""PyTorch scripts on minidl: everything that exists only for them. The engine does not import it."""
