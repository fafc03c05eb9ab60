"""Tests of :mod:`wsproxy.web`, one file for each module."""
