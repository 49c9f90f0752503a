"""A process for each contender, so that the memory and threads of one are not another's. One works at a time."""

import traceback
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any

from bytepixels.heap import keep_memory

from .machine import count_flops, seconds
from .peers import Setting, contender


class Worker:
    """One contender in its own process: ask("train") and ask("evaluate") give the seconds of one call."""

    def __init__(self, setting: Setting, clock: str):
        self.setting = setting
        spawned = get_context("spawn")
        self.pipe, theirs = spawned.Pipe()
        self.process = spawned.Process(target=serve, args=(theirs, setting, clock), daemon=True)
        self.process.start()
        theirs.close()
        self.parameters, self.note = self.answer()

    def ask(self, what: str) -> Any:
        """ "train" or "evaluate": seconds. "flops train", "flops evaluate": operations, after a call to warm up."""
        self.pipe.send(what)
        return self.answer()

    def answer(self) -> Any:
        kind, value = self.pipe.recv()
        if kind == "error":
            raise RuntimeError(f"{self.setting.name}: {value}")
        return value

    def stop(self) -> None:
        self.pipe.close()
        self.process.join()


def serve(pipe: Connection, setting: Setting, clock: str) -> None:
    """Answer until nobody asks any more. Ours keep their memory, as `train` and `sample` do."""
    try:
        if setting.library in ("bytepixels", "bare"):
            keep_memory()
        field = contender(setting)
        pipe.send(("ready", (sum(p.numel() for p in field.network.parameters()), field.note)))
        while True:
            what = pipe.recv()
            call = getattr(field, what.removeprefix("flops "))
            if what.startswith("flops "):
                call()
                pipe.send(("flops", count_flops(call)))
            else:
                pipe.send(("seconds", seconds(call, clock)))
    except EOFError:
        return
    except Exception:
        pipe.send(("error", traceback.format_exc()))
