"""Tests of :mod:`wsproxy.wsgi`, one file for each module."""
