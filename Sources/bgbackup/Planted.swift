// A file.
import TestSupport
