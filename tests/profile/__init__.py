"""Tests of stanch.profile."""  # noqa: A005 - below `tests`, it shadows no module
