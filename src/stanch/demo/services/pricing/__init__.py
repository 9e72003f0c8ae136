"""Quotes from quantity tiers that native code keeps."""
