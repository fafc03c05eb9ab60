"""Tests of :mod:`wsproxy.testing.screen`, one file for each module."""
