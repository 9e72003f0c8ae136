"""Settings of the catalog. There is nothing to repair here, so nothing depends on the incident."""

# Rendered pages kept; with PAGE_ROWS rows each this is about 20 MB when full.
CACHE_PAGES = 320

PAGE_ROWS = 90

# The search index is loaded in the background, in this many parts, one every so often.
INDEX_PARTS = 24
INDEX_PART_SECONDS = 1.0
INDEX_WORDS_PER_PART = 3000
