"""A C program that runs beside a backup and measures what it feels of it."""

import json
import os
import select
import subprocess
from collections.abc import Callable
from pathlib import Path

from .environment import BenchError, need_packages
from .signals import undisturbed

HERE = Path(__file__).resolve().parent
ANSWER_SECONDS = 300


def build(name: str, home: Path) -> str:
    """Compiles `name`.c of this directory into `home`."""
    need_packages({"cc": "build-essential"})
    program = home / name
    subprocess.run(["cc", "-O2", "-o", str(program), str(HERE / f"{name}.c")], check=True)
    return str(program)


class Companion:
    """`with Companion(…) as companion:` starts it and waits until it is ready; the end ends it."""

    def __init__(self, name: str, home: Path, arguments: list,
                 wrap: Callable[[list[str]], list[str]] = lambda argv: argv):
        self.name, self.argv = name, wrap([build(name, home), *map(str, arguments)])
        self.text = b""

    def __enter__(self) -> "Companion":
        self.process = subprocess.Popen(self.argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0,
                                        start_new_session=True)
        try:
            self.ready = self._answer()
        except BaseException:
            self.__exit__()
            raise
        return self

    def ask(self) -> dict:
        """Its figures since it was asked before, or since it began."""
        try:
            self.process.stdin.write(b"\n")
        except BrokenPipeError:
            pass                             # the answer will say that it ended
        return self._answer()

    def _answer(self) -> dict:
        output = self.process.stdout.fileno()
        while b"\n" not in self.text:
            if not select.select([output], [], [], ANSWER_SECONDS)[0]:
                raise BenchError(f"the {self.name} says nothing")
            chunk = os.read(output, 65536)
            if not chunk:
                raise BenchError(f"the {self.name} ended with status {self.process.wait()}")
            self.text += chunk
        line, self.text = self.text.split(b"\n", 1)
        return json.loads(line)

    def __exit__(self, *_) -> None:
        with undisturbed():
            self.process.stdin.close()       # its driver is gone, so it goes
            for end in (lambda: None, self.process.kill):
                end()
                try:
                    self.process.wait(10)    # not for ever: on a frozen file system it ends with the thaw
                except subprocess.TimeoutExpired:
                    continue
            self.process.stdout.close()
