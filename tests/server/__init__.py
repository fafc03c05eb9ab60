"""Tests of :mod:`wsproxy.server`, one file for each module."""
