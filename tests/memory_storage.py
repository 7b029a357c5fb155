"""A storage that forgets everything, for what keeps no files or looks at them at once."""

from obstore.store import MemoryStore

from integrations.storage.objects import ObjectStore


def memory_storage() -> ObjectStore:
    return ObjectStore(MemoryStore())
