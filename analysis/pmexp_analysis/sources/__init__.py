"""Where runs come from, and the experiment that they make up."""
