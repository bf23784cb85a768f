"""Holds the Hydra launchers of pmexp."""
