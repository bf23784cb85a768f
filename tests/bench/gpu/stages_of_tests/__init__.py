"""Stages that end in every way there is."""
