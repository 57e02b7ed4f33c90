"""What `Benchmarks/torture` is made of.

`observe` runs in a process of its own, inside the engine's virtual environment; all else needs the
standard library only. `model` and `verdict` touch no file and no process.
"""
