"""The search index: loaded part by part after the start, then only read."""

import threading
import time

from . import settings


class SearchIndex:
    """Word to product numbers; `load` runs in the background, searching works meanwhile."""

    def __init__(self) -> None:
        self._products_by_word: dict[str, tuple[int, ...]] = {}

    def load_in_background(self) -> None:
        """Start loading; the thread ends by itself."""
        threading.Thread(target=self._load, name="index-loader", daemon=True).start()

    def search(self, word: str) -> tuple[int, ...]:
        """Return the products that carry a word, as far as the index is loaded."""
        return self._products_by_word.get(word, ())

    def _load(self) -> None:
        for part in range(settings.INDEX_PARTS):
            first = part * settings.INDEX_WORDS_PER_PART
            for number in range(first, first + settings.INDEX_WORDS_PER_PART):
                self._products_by_word[f"word-{number}"] = tuple(range(number, number + 4))
            time.sleep(settings.INDEX_PART_SECONDS)
