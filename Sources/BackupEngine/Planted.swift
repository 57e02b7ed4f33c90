// A file.
@preconcurrency import ArgumentParser
