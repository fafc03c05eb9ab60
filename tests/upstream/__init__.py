"""Tests of :mod:`wsproxy.upstream`, one file for each module."""
