"""Tests of :mod:`wsproxy.state`, one file for each module."""
