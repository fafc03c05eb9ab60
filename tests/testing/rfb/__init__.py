"""Tests of :mod:`wsproxy.testing.rfb`, one file for each module."""
