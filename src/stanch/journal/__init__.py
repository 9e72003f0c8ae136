"""What must outlive the process that knows it: alarms, messages, marks, deaths, recycles."""

from stanch.journal.database import FILE_NAME, Journal, JournalError, Transaction
from stanch.journal.lock import HolderLock
from stanch.journal.place import default_directory

__all__ = [
    "FILE_NAME",
    "HolderLock",
    "Journal",
    "JournalError",
    "Transaction",
    "default_directory",
]
