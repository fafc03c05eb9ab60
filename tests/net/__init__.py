"""Tests of :mod:`wsproxy.net`, one file for each module."""
