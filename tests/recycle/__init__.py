"""Tests of recycling."""
