"""Tests of :mod:`wsproxy.runtime`, one file for each module."""
