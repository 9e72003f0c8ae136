"""Tests of the stanch command."""
