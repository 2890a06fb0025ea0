"""Tracks through the pipeline on this machine: ``tonestream classify`` and ``tonestream watch``."""
