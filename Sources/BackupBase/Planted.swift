// A file.
@_exported public import Crypto
