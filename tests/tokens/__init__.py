"""Tests of :mod:`wsproxy.tokens`, one file for each module."""
