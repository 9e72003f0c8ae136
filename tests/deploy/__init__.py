"""Tests of what ships beside the package: rules, dashboard, manifests."""
