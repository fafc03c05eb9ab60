"""Tests of :mod:`wsproxy.protocol`, one file for each module."""
