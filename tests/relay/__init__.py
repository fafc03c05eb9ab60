"""Tests of :mod:`wsproxy.relay`, one file for each module."""
