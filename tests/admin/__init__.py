"""Tests of :mod:`wsproxy.admin`, one file for each module."""
