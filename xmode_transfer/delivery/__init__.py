"""The main job: what is due, a run, one delivery."""
