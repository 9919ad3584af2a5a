"""``torch.distributed``: minidl's process group on MPI. RANK and WORLD_SIZE are there before the script reads them."""

from minidl.distributed import *
from minidl.distributed import set_environment

set_environment()
