"""Tests of :mod:`wsproxy.testing.kubevirt`, one file for each module."""
