"""Tests of :mod:`wsproxy.cli`, one file for each module."""
