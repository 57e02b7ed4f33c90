// A file.
import struct QdrantStorage.FileClass
