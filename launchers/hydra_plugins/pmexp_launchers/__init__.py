"""Hydra launchers of pmexp."""
