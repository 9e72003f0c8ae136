"""Discovery of targets, scraping and push ingest."""

from stanch.collect.discovery import FileTargets, FixedTargets, TargetSource, find_targets
from stanch.collect.errors import FetchError, TargetError
from stanch.collect.observe import observe
from stanch.collect.scrape import Scrape, Scraper
from stanch.collect.targets import Target, TargetDefaults, parse_target

__all__ = [
    "FetchError",
    "FileTargets",
    "FixedTargets",
    "Scrape",
    "Scraper",
    "Target",
    "TargetDefaults",
    "TargetError",
    "TargetSource",
    "find_targets",
    "observe",
    "parse_target",
]
