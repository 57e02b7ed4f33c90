"""Runs one program at a time and leaves none behind."""

import signal
import subprocess
from contextlib import contextmanager
from dataclasses import dataclass

GRACE_SECONDS = 30   # for a program that has to undo something when it is told to end


@dataclass
class Done:
    status: int          # negative: the signal that ended it
    output: str
    errors: str
    timed_out: bool = False

    def reason(self) -> str:
        """What a reader needs of a failure, in one paragraph."""
        text = (self.errors.strip() or self.output.strip())[-1500:]
        if self.timed_out:
            return f"hung and was killed; {text}"
        if self.status < 0:
            return f"ended by {signal.Signals(-self.status).name}; {text}"
        return f"exit {self.status}; {text}"


def run(argv: list, timeout: float, env: dict[str, str] | None = None) -> Done:
    """Runs a program in a session of its own, so that Ctrl-C reaches this script first."""
    process = subprocess.Popen(list(map(str, argv)), env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, text=True, errors="replace", start_new_session=True)
    try:
        output, errors = process.communicate(timeout=timeout)
        return Done(process.returncode, output, errors)
    except subprocess.TimeoutExpired:
        process.kill()
        output, errors = process.communicate()
        return Done(process.returncode, output, errors, timed_out=True)
    except BaseException:
        end(process)
        raise


def end(process: subprocess.Popen) -> None:
    """Asks a program to end, and makes it."""
    if process.poll() is not None:
        return
    for number in (signal.SIGCONT, signal.SIGTERM):   # a stopped process would not hear
        process.send_signal(number)
    try:
        process.wait(GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@contextmanager
def undisturbed():
    """Keeps signals from interrupting a clean-up."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, signal.SIG_IGN) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
