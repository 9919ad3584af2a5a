"""Run an example as it is, but for three things: it tests on 1,000 images, says where it is, and may kill itself.

    python watched_example.py LINE WHERE KEEP example.py --options ...

kills the process at that line of Python, counted from 1 and only between the end of an epoch's training and the end
of its saving (0: never): of those in minidl/io.py and examples/_common.py if WHERE is "ours", of all if it
is "all". It prints "training" before an epoch, "saving" before its saving and after that "saved", with the lines so far
of all and of ours. KEEP-1.npz, KEEP-2.npz, ... are copies of the checkpoints, unless KEEP is empty.
"""

import os
import runpy
import shutil
import signal
import sys
from collections import Counter

from example_files import EXAMPLES  # which is beside this script

sys.path.insert(0, str(EXAMPLES))
import _common

line, where, keep, script, *options = sys.argv[1:]
progress, finish_epoch = _common.Run.progress, _common.Run.finish_epoch
lines = Counter(all=0, ours=0)


def fewer(drawn):
    return lambda n, seed: drawn(min(n, 1000), seed=seed)


def say_and_train(run, batches, epoch):
    print("training", flush=True)
    return progress(run, batches, epoch)


def count(frame, event, argument):
    """What `sys.settrace` calls at each line."""
    if event == "line":
        file = os.path.basename(frame.f_code.co_filename)
        lines.update(["all", "ours"] if file in ("io.py", "_common.py") else ["all"])
        if lines[where] == int(line):
            os.kill(os.getpid(), signal.SIGKILL)
    return count


def finish_and_say(run, unit, **metrics):
    print("saving", flush=True)
    sys.settrace(count)
    finish_epoch(run, unit, **metrics)
    sys.settrace(None)
    print("saved", lines["all"], lines["ours"], flush=True)
    if keep:
        shutil.copy(run.out / _common.CHECKPOINT, f"{keep}-{len(run.epochs)}.npz")


if __name__ == "__main__":
    _common.SETS.update({name: source._replace(drawn=fewer(source.drawn)) for name, source in _common.SETS.items()})
    _common.Run.progress, _common.Run.finish_epoch = say_and_train, finish_and_say
    sys.argv = [script, *options]
    runpy.run_path(str(EXAMPLES / script), run_name="__main__")
