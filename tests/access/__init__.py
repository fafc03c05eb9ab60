"""Tests of :mod:`wsproxy.access`, one file for each module."""
