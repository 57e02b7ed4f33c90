"""What must not be interrupted."""

import signal
from contextlib import contextmanager


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
