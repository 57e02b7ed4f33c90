// A file.
internal import CLinux
