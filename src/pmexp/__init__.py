"""pmexp: prove a memory-saving training method, from one command to a verdict."""
